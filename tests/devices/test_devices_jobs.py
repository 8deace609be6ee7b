from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.settings import PRESETS, MeasureSettings
from hwnas_sdk.core.types import Artifact
from hwnas_sdk.devices.jobs import Block, JobItem, MeasureJob

_names = st.text(min_size=1, max_size=20).filter(lambda text: text != "@sentinel")
_finite = st.floats(allow_nan=False, allow_infinity=False)
_shapes = st.dictionaries(_names, st.lists(st.integers(1, 512), max_size=4).map(tuple), max_size=2)
_artifacts = st.builds(
    Artifact,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    format=st.just("onnx"),
    arch_id=_names,
    folded=st.booleans(),
    producer=st.text(max_size=20),
    size_bytes=st.integers(0, 2**40),
    path=st.text(max_size=40),
    input_shapes=_shapes,
)
_items = st.builds(
    JobItem,
    item=_names,
    arch_id=_names,
    arch=st.text(max_size=40),
    artifact=st.none() | _artifacts,
    expected=st.none() | st.lists(_finite, max_size=4).map(tuple),
    input_seed=st.integers(0, 2**31),
)
_jobs = st.builds(
    MeasureJob,
    id=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}", fullmatch=True),
    items=st.lists(_items, min_size=1, max_size=3, unique_by=lambda entry: entry.item).map(tuple),
    settings=st.sampled_from(list(PRESETS.values()))
    | st.builds(MeasureSettings, threads=st.integers(1, 8), ci_rel_target=st.floats(0, 1)),
    sentinel=st.none() | _artifacts,
    seed=st.integers(0, 2**63),
)


@settings(max_examples=40, deadline=None)
@given(_jobs)
def test_job_survives_json(job: MeasureJob) -> None:
    assert MeasureJob.from_json(json.loads(json.dumps(job.to_json()))) == job


@pytest.mark.parametrize(
    "damage",
    [
        lambda payload: payload.pop("items"),
        lambda payload: payload.update(items=3),
        lambda payload: payload["settings"].update(from_the_future=1),
        lambda payload: payload.update(id="../../etc/passwd"),
        lambda payload: payload["items"][0].pop("artifact"),
        lambda payload: payload["items"][0].update(expected=["x"]),
        lambda payload: payload.update(sentinel={"sha256": "x"}),
    ],
)
def test_damaged_job_is_refused(damage, make_job) -> None:
    payload = make_job().to_json()
    damage(payload)
    with pytest.raises(DataError, match="cannot be read") as caught:
        MeasureJob.from_json(payload)
    assert caught.value.code == "bad_job"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "x" * 200])
def test_job_id_names_a_file(name: str, make_job) -> None:
    with pytest.raises(ConfigError, match="bad job id"):
        make_job(name)


def test_items_have_distinct_names(make_job) -> None:
    job = make_job(n=1)
    with pytest.raises(ConfigError, match="distinct"):
        MeasureJob("x", job.items * 2, job.settings, None, 0)
    with pytest.raises(ConfigError, match="distinct"):
        MeasureJob("x", (), job.settings, None, 0)


def test_blocks_compare_by_samples() -> None:
    one = Block(samples_ns=np.array([1, 2]), cpu_ns=1, wall_ns=2)
    same = Block(samples_ns=np.array([1, 2]), cpu_ns=1, wall_ns=2)
    other = Block(samples_ns=np.array([1, 3]), cpu_ns=1, wall_ns=2)
    later = Block(samples_ns=np.array([1, 2]), cpu_ns=1, wall_ns=2, t_ns=5)
    assert one == same
    assert one != other
    assert one != later
    assert one != "block"
