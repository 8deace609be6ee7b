"""The host's own answer agrees with the board's, and notices when it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.exporter import export_architecture
from hwnas_sdk.spaces import get_space
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.reference import expected_output

CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"


def test_output_of_a_real_network_is_finite_and_repeatable(tmp_path: Path) -> None:
    space = get_space("nasbench201")
    cache = ArtifactCache(tmp_path)
    artifact = export_architecture(space, space.decode(CELL), cache=cache, folded=False)
    first = expected_output(artifact)
    assert first is not None
    assert len(first) == 10
    assert first == expected_output(artifact)
    assert first != expected_output(artifact, input_seed=1)
    folded = export_architecture(space, space.decode(CELL), cache=cache, folded=True)
    assert expected_output(folded) == pytest.approx(first, rel=1e-3, abs=1e-4)


def test_a_file_no_runtime_loads_gives_nothing(tmp_path: Path) -> None:
    space = get_space("nasbench201")
    artifact = export_architecture(
        space, space.decode(CELL), cache=ArtifactCache(tmp_path / "cache"), folded=False
    )
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    assert expected_output(replace(artifact, path=str(broken), sha256="0" * 64)) is None


@pytest.mark.alone
def test_the_board_agrees_with_the_host() -> None:
    with Lab.open() as lab:
        result = lab.measure([CELL], on=lab.device("local"))[0]
        assert "output_unchecked" not in result.flags
        assert "output_mismatch" not in result.flags
        assert result.latency_ms is not None
        assert np.isfinite(result.latency_ms)
