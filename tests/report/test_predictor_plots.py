"""Pictures of the predictor benches: what they show, not how they look."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.report import predictor_plots
from hwnas_sdk.report.predictor_plots import (
    Predicted,
    draw_bars,
    draw_calibration,
    draw_curve,
    draw_predictions,
)

PNG = b"\x89PNG\r\n\x1a\n"


def predicted(n=400, sd=1.0):
    rng = np.random.default_rng(0)
    mean = rng.uniform(10.0, 20.0, size=n)
    return Predicted(mean + rng.normal(size=n), mean, np.full(n, sd), 0.9)


def test_coverage_is_the_nominal_one_of_an_honest_interval():
    levels = np.array([0.5, 0.9])
    np.testing.assert_allclose(predicted(4000).coverage(levels), levels, atol=0.03)
    assert (predicted(sd=2.0).coverage(levels) > levels).all()
    assert (predicted(sd=0.5).coverage(levels) < levels).all()


def test_each_picture_is_a_png_and_the_same_twice(tmp_path):
    devices = {"one": predicted(), "two": predicted(sd=2.0)}
    rows = [{"train": 100, "tau": 0.6, "hv": 0.9}, {"train": 500, "tau": 0.8, "hv": 1.0}]

    def draw(folder):
        return [
            draw_predictions(devices, unit="ms", path=folder / "a.png"),
            draw_calibration(devices, path=folder / "b.png"),
            draw_curve(
                rows, over="train", lines={"tau": "Kendall", "hv": "volume"},
                labels=("labels", "figure"), path=folder / "c.png",
            ),
            draw_bars(
                {"tau": {"ours": 0.8, "theirs": 0.7}, "hv": {"ours": 1.0}}, label="figure",
                path=folder / "d.png",
            ),
        ]  # fmt: skip

    first, second = (draw(tmp_path / name) for name in ("x", "y"))
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes().startswith(PNG)
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("n_words", [1, 4, 8])
def test_a_long_legend_takes_more_lines_and_is_whole(tmp_path, monkeypatch, n_words):
    figures = []
    monkeypatch.setattr(
        predictor_plots, "write_picture", lambda draw, path: figures.append(draw()) or path
    )
    lines = {f"{i}": f"{i} " + "word " * n_words for i in range(4)}
    rows = [{"n": n, **dict.fromkeys(lines, 0.5)} for n in (1, 2)]
    draw_curve(rows, over="n", lines=lines, labels=("n", "y"), path=tmp_path / "x.png")
    (figure,) = figures
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 4
    box = legend.get_window_extent()
    assert box.x0 >= 0.0
    assert box.y0 >= figure.axes[0].get_window_extent().y1 - 1.0  # its empty edge may touch
    assert box.x1 <= figure.bbox.width


def test_a_folder_that_cannot_be_made_is_a_plain_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        draw_bars({"x": {"y": 1.0}}, label="z", path=tmp_path / "file" / "a.png")
