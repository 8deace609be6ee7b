"""Pictures of search benches: written, and not of the wrong data."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas_sdk.report import search_plots
from hwnas_sdk.report.search_plots import (
    Found,
    draw_curves,
    draw_fronts,
    draw_radar,
    draw_rounds,
    table_of,
)

PNG = b"\x89PNG"


def test_pictures_are_written(tmp_path):
    front = np.array([[6.0, 3.0], [8.0, 2.0], [20.0, 1.0]])
    found = {name: Found(front + 0.5, front, 0.97) for name in ("a", "b")}
    paths = [
        draw_fronts(found, method="auto", path=tmp_path / "fronts.png"),
        draw_radar(
            {"auto": dict.fromkeys("abc", 0.997), "random": dict.fromkeys("abc", 0.9)},
            path=tmp_path / "radar.png",
        ),
        draw_curves(
            {"mgd": [(1, 0.9), (2, 0.95)]}, x="epoch", y="hypervolume", path=tmp_path / "c.png"
        ),
    ]
    for path in paths:
        assert path.read_bytes()[:4] == PNG


def test_a_radar_of_two_devices_is_refused(tmp_path):
    with pytest.raises(ValueError, match="3 devices"):
        draw_radar({"auto": {"a": 0.9, "b": 0.9}}, path=tmp_path / "x.png")
    answers = {"auto": {"devices": {"a": {"normalized_hv": 0.5}}}}
    assert table_of(answers) == {"auto": {"a": 0.5}}


@pytest.fixture
def drawn(monkeypatch):
    """The figures themselves, laid out, instead of their files."""
    figures = []

    def keep(draw, path):
        figure = draw()
        figure.draw_without_rendering()
        figures.append(figure)
        return path

    monkeypatch.setattr(search_plots, "write_picture", keep)
    return figures


def test_no_name_of_a_device_touches_the_legend(drawn, tmp_path):
    devices = ("a_device_of_a_long_name", "b", "c", "another_long_name", "d", "e")
    names = ("auto 3 rounds", "auto", "rank 500 accuracies", "nsga2", "modnas", "ofa", "random 24")
    draw_radar({n: dict.fromkeys(devices, 0.99) for n in names}, path=tmp_path / "x.png")
    (figure,) = drawn
    (axes,), (legend,) = figure.axes, figure.legends
    labels = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert len(labels) == len(devices)
    assert not any(label.overlaps(legend.get_window_extent()) for label in labels)
    assert all(label.x0 >= 0.0 and label.x1 <= figure.bbox.width for label in labels)


def test_rounds_show_every_device_and_the_mean(drawn, tmp_path):
    by_round = {"a": [0.9, 0.98, 0.99], "b": [0.8, 0.9, 0.97]}
    answer = {
        "candidates": 24,
        "devices": {name: {"normalized_hv_by_round": values} for name, values in by_round.items()},
    }
    draw_rounds(answer, path=tmp_path / "x.png")
    (figure,) = drawn
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"a", "b", "mean"}
    for line in lines.values():
        np.testing.assert_array_equal(line.get_xdata(), [24, 48, 72])
    np.testing.assert_array_equal(lines["a"].get_ydata(), by_round["a"])
    np.testing.assert_allclose(lines["mean"].get_ydata(), [0.85, 0.94, 0.98])
    assert lines["mean"].get_linewidth() > lines["a"].get_linewidth()
    assert axes.yaxis.label.get_window_extent().x0 >= 0.0
