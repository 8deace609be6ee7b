"""A file that cannot guide a search is refused before a board works for it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas_sdk.cli.main import main
from hwnas_sdk.core.errors import ConfigError, HwnasError, MissingExtraError, ModelError
from hwnas_sdk.core.settings import settings_preset
from hwnas_sdk.predictors import rank
from hwnas_sdk.predictors.card import WEIGHTS_FOLDER, Card, save_model
from hwnas_sdk.workflows.lab import Lab
from hwnas_sdk.workflows.loop import LoopPlan
from hwnas_sdk.workflows.search import SearchPlan
from hwnas_sdk.workflows.search_guides import check_guide, load_guide

FAKE = "fake://?mode=ok"
THREE = ("error", "latency", "memory")


def ranker(folder: Path, **changes: Any) -> Path:
    """A file whose card is that of a ranker, but for what is changed, and that holds nothing."""
    path = folder / "ranker.safetensors"
    values: dict[str, Any] = {
        "name": "ranker", "kind": rank.KIND, "space": "nasbench201", "schema": rank.SCHEMA,
        "data": {"objectives": ["error", "latency"]}, "settings": {"platforms": {"board": {}}},
        **changes,
    }  # fmt: skip
    save_model(path, {"weights": np.zeros(1)}, Card(**values))
    return path


def hypernetwork(folder: Path, settings: Any = (), **changes: Any) -> Path:
    """The shipped hypernetwork with another card."""
    path = folder / "net.safetensors"
    shipped = WEIGHTS_FOLDER / "nb201_hypernetwork.safetensors"
    shutil.copy(shipped, path)
    card = json.loads(shipped.with_suffix(".json").read_text(encoding="utf-8"))
    card["settings"].update(settings)
    path.with_suffix(".json").write_text(json.dumps({**card, **changes}), encoding="utf-8")
    return path


def cases(folder: Path) -> list[tuple[dict[str, Any], type[HwnasError], str]]:
    """Plans, made one after the other: each writes its file anew."""
    makers: list[tuple[Any, Any, type[HwnasError], str]] = [
        (ranker, {"space": "other"}, ConfigError, "ranks networks of other"),
        (ranker, {"kind": "accuracy"}, ModelError, "of kind 'accuracy'"),
        (ranker, {"schema": 1}, ModelError, "has schema 1"),
        (ranker, {"data": {"objectives": ["error", "energy"]}}, ConfigError, "error,energy"),
        (ranker, {"settings": {"platforms": {"a": {}, "b": {}}}}, ConfigError, "for 2 devices"),
        (hypernetwork, {"settings": {"objectives": THREE}}, ConfigError, "error,latency,memory"),
        (hypernetwork, {"space": "other"}, ModelError, "of space 'other'"),
        (hypernetwork, {"kind": "rank"}, ModelError, "of kind 'rank'"),
        (hypernetwork, {"weights_sha256": "0"}, ModelError, "does not belong to its card"),
    ]
    made = []
    for number, (make, changes, error, text) in enumerate(makers):
        path = make(_new(folder / str(number)), **changes)
        options = {"method": "rank", "ranker": path}
        if make is hypernetwork:
            options = {"method": "modnas", "hypernetwork": path}
        made.append((options, error, text))
    other = ranker(_new(folder / "prior"), kind="accuracy")
    made.append(({"method": "auto", "prior": other}, ModelError, "'latency_prior' is needed"))
    return made


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_loop_measures_nothing_for_a_file_it_cannot_use(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    damaged = {"sizes": {"bank": 3}}
    broken = [
        *cases(tmp_path),
        # What only loading finds out.
        ({"method": "rank", "ranker": ranker(tmp_path)}, ModelError, "incomplete rank"),
        ({"method": "modnas", "hypernetwork": hypernetwork(tmp_path, damaged)}, ModelError,
         "incomplete hypernetwork"),
    ]  # fmt: skip
    with Lab.open() as lab:
        board = lab.device(FAKE)
        for options, error, text in broken:
            plan = LoopPlan(
                device=board.spec.name,
                device_id=board.spec.id,
                search=SearchPlan(**options),
                settings=settings_preset("quick"),
            )
            with pytest.raises(error, match=text) as caught:
                lab.loop(plan, on=board)
            assert "\n" not in str(caught.value)
        assert not lab.store.runs("loop")


def test_dry_runs_and_searches_refuse_it_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for options, error, text in cases(tmp_path):
        name, path = next(item for item in options.items() if item[0] != "method")
        asked = ("--device", FAKE, "--method", options["method"], f"--{name}", str(path), "--json",
                 "-q")  # fmt: skip
        for argv in (("search", "--dry-run"), ("loop", "--dry-run"), ("search",)):
            assert main([*argv, *asked]) == error.exit_code
            # The device has no profile either: the file comes first.
            assert text in json.loads(capsys.readouterr().out)["error"]["message"]


def test_cards_need_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    check_guide(SearchPlan(method="modnas"))
    check_guide(SearchPlan(method="rank", ranker=ranker(tmp_path)))
    load_guide(SearchPlan(method="rank"))
    load_guide(SearchPlan(method="nsga2"))
    check_guide(SearchPlan(method="rank", ranker=ranker(tmp_path, kind="rank_network", schema=1)))
    with pytest.raises(MissingExtraError, match="asking a hypernetwork"):
        load_guide(SearchPlan(method="modnas"))
