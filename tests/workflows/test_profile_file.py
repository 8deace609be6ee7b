from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from hwnas_sdk._resources import bundled
from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.spaces import get_space
from hwnas_sdk.workflows.profile import reference_architectures, reference_set_name
from hwnas_sdk.workflows.profile_file import load_profile, profile_from_mapping, profile_to_mapping

ROOT = Path(__file__).resolve().parents[2]


def test_schema_in_the_repository_is_current() -> None:
    spec = importlib.util.spec_from_file_location("gen", ROOT / "tools" / "gen_profile_schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "profiles" / "profile.schema.json").read_text() == module.schema_text()


def shipped() -> list[Path]:
    return sorted(bundled("profiles").glob("*.yaml"))


def test_a_profile_is_shipped() -> None:
    assert shipped()


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_shipped_profiles_are_measured_and_complete(path: Path) -> None:
    profile = load_profile(path)
    assert profile.origin == "measured"
    known = set(reference_architectures("both"))
    assert set(profile.architectures) <= known
    assert len(profile.architectures) >= 10
    space = get_space(profile.space)
    for arch in profile.architectures:
        assert space.encode(space.decode(arch)) == arch
    assert profile_from_mapping(profile_to_mapping(profile), where="x") == profile


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_shipped_profiles_say_where_they_come_from(path: Path) -> None:
    profile = load_profile(path)
    assert profile.device["machine"] != "emulated"
    assert len(profile.source.split()) >= 5, "who measured it, on what, in which run"
    listed = (ROOT / "profiles" / "README.md").read_text(encoding="utf-8")
    assert f"| `{path.name}` | {profile.origin} |" in listed


def test_origin_and_source_are_required_and_explained() -> None:
    schema = json.loads((ROOT / "profiles" / "profile.schema.json").read_text())
    assert {"origin", "source"} <= set(schema["required"])
    for key in ("origin", "source"):
        assert len(schema["properties"][key]["description"]) > 20


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"schema": 2}, "schema"),
        ({"colour": "red"}, "colour"),
        ({"origin": "guessed"}, "origin"),
        ({"references": []}, "references"),
        ({"references": [{"arch": "x", "latency_ms": -1}]}, "references.0.latency_ms"),
    ],
)
def test_wrong_profiles_name_the_key(tmp_path: Path, change: dict[str, object], shown: str) -> None:
    good = yaml.safe_load(shipped()[0].read_text())
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump({**good, **change}))
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert shown in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[1, 2]", "a: [", "\x00"])
def test_files_that_are_no_profile(tmp_path: Path, content: str) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"board\.yaml"):
        load_profile(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_profile(tmp_path / "missing.yaml")


def test_reference_sets() -> None:
    assert reference_set_name("both") == "ours-10+paper-10"
    assert len(reference_architectures("ours")) == len(reference_architectures("paper")) == 10
    with pytest.raises(ConfigError, match="one of"):
        reference_set_name("theirs")
