"""The Python example of docs/predictors-meta.md, taken from the page and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas_sdk.predictors.card import WEIGHTS_FOLDER

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "predictors-meta.md").read_text(
    encoding="utf-8"
)


def test_the_example_predicts_with_a_trained_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from hwnas_sdk.predictors.neural.meta import MetaPredictor

    MetaPredictor.shipped().save(tmp_path / "meta.safetensors", data={})
    monkeypatch.chdir(tmp_path)
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found.group(1), names)
    mean, gradient = names["mean"], names["gradient"]
    assert isinstance(mean, np.ndarray)
    assert np.isfinite(mean).all()
    assert mean[0] > mean[1] > 0.0  # six 3x3 convolutions, six skips
    assert tuple(gradient.shape) == (2, 6, 5)
    assert float(gradient.abs().sum()) > 0.0
