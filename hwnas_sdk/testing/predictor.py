"""What every model that carries values to a new device must be able to do.

Usage::

    class TestMyModel(TransferModelConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def model(cls) -> type[TransferModel]:
            return MyModel
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from hwnas_sdk.core.errors import HwnasError, ModelError
from hwnas_sdk.core.events import ignore
from hwnas_sdk.core.rng import child_rng
from hwnas_sdk.predictors.encodings import FEATURE_NAMES, live_edges, structural_features
from hwnas_sdk.predictors.metrics import spearman
from hwnas_sdk.predictors.prediction import Prediction
from hwnas_sdk.predictors.transfer import TransferModel
from hwnas_sdk.spaces import get_space

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_N_KNOWN = 5
_N_JUDGED = 200
_KIND_OF_COST = ("raw_conv3", "raw_conv1", "raw_pool", "raw_skip", "live_conv3", "live_path_hops")


class TransferModelConformance:
    """Inherit and override the fixture `model`; the attributes say what a model does not promise.

    Attributes:
        n_cells: architectures of the known devices.
        n_samples: values the new device is adapted to.
        least_spearman: over architectures that were not sampled, on an invented device.
        learns_from_known: False for a model that looks at the new device alone.
        predicts_unseen: False for a model that knows only architectures of the known devices;
            the others it must answer with NaN.
        tolerance: relative; how far two predictions that ought to be one may lie apart.
    """

    n_cells = 600
    n_samples = 10
    least_spearman = 0.7
    learns_from_known = True
    predicts_unseen = True
    tolerance = 1e-3

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> type[TransferModel]:
        """Class of the model under test."""
        raise NotImplementedError("override the fixture `model`")

    @pytest.fixture(scope="class")
    @classmethod
    def cells(cls) -> Ints:
        """Architectures of the known devices, (n_cells, 6), live."""
        return invented_cells(cls.n_cells)

    @pytest.fixture(scope="class")
    @classmethod
    def known(cls, cells: Ints) -> Mapping[str, Floats]:
        """Known devices, one of them not measured on every third architecture."""
        columns = {f"known{i}": invented_values(cells, i) for i in range(_N_KNOWN)}
        columns["known0"][::3] = np.nan
        return columns

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(
        cls, model: type[TransferModel], cells: Ints, known: Mapping[str, Floats]
    ) -> TransferModel:
        """The model, fitted with seed 0; a fast one tells no progress."""
        return model.fit(cells, known, seed=0, on_event=ignore)

    @pytest.fixture(scope="class")
    @classmethod
    def values(cls, cells: Ints) -> Floats:
        """Values of a new device on the first `n_samples` cells."""
        return invented_values(cells, _N_KNOWN)[: cls.n_samples]

    @pytest.fixture(scope="class")
    @classmethod
    def prediction(cls, fitted: TransferModel, cells: Ints, values: Floats) -> Prediction:
        """For the cells after the sampled ones."""
        adapted = fitted.adapt(cells[: cls.n_samples], values)
        return adapted.predict(cls._judged(cells))

    @classmethod
    def _judged(cls, cells: Ints) -> Ints:
        return cells[cls.n_samples : cls.n_samples + _N_JUDGED]

    # --- what it answers ------------------------------------------------------------------------

    def test_one_mean_and_sd_per_architecture(self, prediction: Prediction) -> None:
        """Finite means; an sd is not negative, or NaN where the model states none."""
        for part in prediction:
            assert part.shape == (_N_JUDGED,)
            assert part.dtype == np.float64
        assert np.isfinite(prediction.mean).all()
        stated = ~np.isnan(prediction.sd)
        assert stated.all() or not stated.any(), "an sd for all architectures or for none"
        assert (prediction.sd[stated] >= 0).all()

    def test_ranks_an_unseen_device(self, prediction: Prediction, cells: Ints) -> None:
        """Better than chance by far, on architectures that were not sampled."""
        truth = invented_values(self._judged(cells), _N_KNOWN)
        rho = spearman(truth, prediction.mean)
        assert rho is not None
        assert rho >= self.least_spearman

    def test_answers_do_not_depend_on_company(
        self, fitted: TransferModel, cells: Ints, values: Floats, prediction: Prediction
    ) -> None:
        """One architecture is predicted alike alone, in any batch; none gives empty answers."""
        adapted = fitted.adapt(cells[: self.n_samples], values)
        one = adapted.predict(self._judged(cells)[3:4])
        self._same(one.mean, prediction.mean[3:4])
        none = adapted.predict(cells[:0])
        assert none.mean.shape == none.sd.shape == (0,)

    def test_architectures_that_no_known_device_has(
        self, fitted: TransferModel, cells: Ints, values: Floats
    ) -> None:
        """They are predicted, or NaN: never a number from nowhere."""
        foreign = invented_cells(self.n_cells + 20)[self.n_cells :]
        adapted = fitted.adapt(cells[: self.n_samples], values)
        mean = adapted.predict(foreign).mean
        assert np.isfinite(mean).all() if self.predicts_unseen else np.isnan(mean).all()
        if self.predicts_unseen:
            measured = invented_values(foreign, _N_KNOWN)[: self.n_samples]
            on_foreign = fitted.adapt(foreign[: self.n_samples], measured)
            assert np.isfinite(on_foreign.predict(cells).mean).all()

    # --- seeds and units ------------------------------------------------------------------------

    def test_same_seed_same_model(
        self,
        model: type[TransferModel],
        cells: Ints,
        known: Mapping[str, Floats],
        values: Floats,
        prediction: Prediction,
    ) -> None:
        """A second fit with one seed predicts the same, whatever the global generator holds."""
        np.random.seed(1)  # noqa: NPY002  # the point is that it must not matter
        again = model.fit(cells, known, seed=0).adapt(cells[: self.n_samples], values)
        np.testing.assert_allclose(
            again.predict(self._judged(cells)).mean, prediction.mean, rtol=1e-6
        )

    def test_adapting_leaves_the_model_as_it_was(
        self, fitted: TransferModel, cells: Ints, values: Floats, prediction: Prediction
    ) -> None:
        """Another device in between changes nothing."""
        fitted.adapt(cells[: self.n_samples], values[::-1].copy())
        again = fitted.adapt(cells[: self.n_samples], values).predict(self._judged(cells))
        np.testing.assert_allclose(again.mean, prediction.mean, rtol=1e-6)

    @pytest.mark.parametrize("factor", [1e-3, 64.0])
    def test_answers_in_the_unit_of_the_values(
        self,
        fitted: TransferModel,
        cells: Ints,
        values: Floats,
        prediction: Prediction,
        factor: float,
    ) -> None:
        """Values times c give predictions times c: seconds are as good as milliseconds."""
        scaled = fitted.adapt(cells[: self.n_samples], factor * values)
        mean, sd = scaled.predict(self._judged(cells))
        self._same(mean / factor, prediction.mean)
        self._same(sd / factor, prediction.sd)

    def test_known_devices_may_have_units_of_their_own(
        self,
        model: type[TransferModel],
        cells: Ints,
        known: Mapping[str, Floats],
        values: Floats,
        prediction: Prediction,
    ) -> None:
        """One known device in microseconds changes nothing but rounding."""
        other = {**known, "known1": 1024.0 * known["known1"]}
        again = model.fit(cells, other, seed=0).adapt(cells[: self.n_samples], values)
        rho = spearman(prediction.mean, again.predict(self._judged(cells)).mean)
        assert rho is not None
        assert rho > 0.98

    # --- what is wrong --------------------------------------------------------------------------

    @pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
    def test_values_must_be_positive_numbers(
        self, fitted: TransferModel, cells: Ints, values: Floats, wrong: float
    ) -> None:
        """What was not measured is left out by the caller, not guessed by the model."""
        broken = values.copy()
        broken[2] = wrong
        refused(lambda: fitted.adapt(cells[: self.n_samples], broken), ModelError)

    def test_shapes_must_agree(self, fitted: TransferModel, cells: Ints, values: Floats) -> None:
        """One value per architecture, and architectures of the space."""
        refused(lambda: fitted.adapt(cells[: self.n_samples - 1], values))
        refused(lambda: fitted.adapt(cells[: self.n_samples, :4], values))
        adapted = fitted.adapt(cells[: self.n_samples], values)
        refused(lambda: adapted.predict(cells[:5, :4]))
        refused(lambda: adapted.predict(cells[:5] + 5))

    def test_nothing_to_learn_from(self, model: type[TransferModel], cells: Ints) -> None:
        """No known device, and columns of another length, are refused."""
        if self.learns_from_known:
            refused(lambda: model.fit(cells, {}), ModelError)
        refused(lambda: model.fit(cells, {"short": np.ones(len(cells) - 1)}))

    def _same(self, one: Floats, other: Floats) -> None:
        np.testing.assert_allclose(one, other, rtol=self.tolerance)


def refused(call: Callable[[], object], error: type[HwnasError] = HwnasError) -> None:
    """`call` must raise one of our errors, told in one line."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert message
    assert "\n" not in message


def invented_cells(n: int) -> Ints:
    """The first n of a fixed random order of the live NAS-Bench-201 cells, (n, 6)."""
    space = get_space("nasbench201")
    rng = child_rng(0, "invented cells")
    drawn = rng.integers(0, 5, size=(4 * n, space.n_decisions))
    _, first = np.unique(drawn, axis=0, return_index=True)
    drawn = drawn[np.sort(first)]
    alive = live_edges(drawn).any(axis=1)
    cells: Ints = drawn[alive][:n]
    assert len(cells) == n
    return cells


def invented_values(cells: Ints, device: int) -> Floats:
    """Latencies of an invented device, (n, 6) -> (n,): costs of its own and 1 % noise.

    The noise of a cell is its own, so that a part of the cells has the values it has in the whole.
    """
    rng = child_rng(device, "invented device")
    costs = rng.uniform([1.0, 0.2, 0.1, 0.0, 0.5, 0.0], [2.0, 0.8, 0.6, 0.2, 1.0, 0.5])
    features = structural_features(cells)
    columns = [FEATURE_NAMES.index(name) for name in _KIND_OF_COST]
    mean = 2.0 + features[:, columns] @ costs
    noise = [child_rng(device, "noise", *map(int, cell)).normal() for cell in cells]
    values: Floats = 10.0 ** rng.uniform(-1, 2) * mean * np.exp(0.01 * np.array(noise))
    return values
