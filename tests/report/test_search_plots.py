"""Pictures of search benches: written, and not of the wrong data."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas_sdk.report.search_plots import Found, draw_curves, draw_fronts, draw_radar, table_of

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
