"""The soak test's hosts: data folders of their own, and the `hwnas` commands they give."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from soak_witness import StoreWitness, parsed

HWNAS = (sys.executable, "-m", "hwnas_sdk.cli.main")
TINY_SENTINEL = (sys.executable, str(Path(__file__).with_name("soak_command.py")))


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str
    took_s: float
    timed_out: bool = False

    @property
    def killed(self) -> bool:
        """Whether it was ended by a signal, ours."""
        return self.status < 0

    @property
    def done(self) -> bool:
        """Whether it came to its end: all measured, if only as invalid (a busy board)."""
        return self.status == 0 or self.error.get("code") == "invalid_measurements"

    @property
    def error(self) -> dict[str, Any]:
        """The one-line error; empty when it said none."""
        answer = parsed(self.stdout)
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            return dict(answer["error"])
        # An answer that is an error of its own (invalid measurements) comes beside its document.
        for line in reversed(self.stderr.splitlines()):
            if line.startswith("error: ") and line.endswith("]"):
                text, _, code = line.removeprefix("error: ").rpartition(" [")
                return {"message": text, "hint": text, "code": code.rstrip("]")}
        return {}

    @property
    def text(self) -> str:
        """Everything it said."""
        return f"{self.stderr}\n{self.stdout}".strip()


class Command:
    """One running `hwnas`."""

    def __init__(self, words: list[str], environ: dict[str, str]) -> None:
        """Start it."""
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self._began_s = time.monotonic()
        self._process = subprocess.Popen(
            words, env=environ, stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err,
            start_new_session=True,
        )  # fmt: skip

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Kill -9."""
        self._process.send_signal(signal.SIGKILL)

    def finish(self, limit_s: float) -> Outcome:
        """Wait for its end; after `limit_s` it is killed."""
        timed_out = False
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            self.kill()
            self._process.wait()
        texts = []
        for stream in (self._out, self._err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
            stream.close()
        took_s = time.monotonic() - self._began_s
        return Outcome(self._process.returncode, texts[0], texts[1], took_s, timed_out)


class Host:
    """One user: a data folder, and what is stored there."""

    def __init__(self, home: Path, environ: dict[str, str], *, sentinel: str = "") -> None:
        """Use the data folder `home`; `sentinel` is a tiny network instead of the standard one."""
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.witness = StoreWitness(home / "store.sqlite")
        self._hwnas = TINY_SENTINEL if sentinel else HWNAS
        self._environ = {**os.environ, **environ, "HWNAS_HOME": str(home)}
        self._environ["SOAK_SENTINEL"] = sentinel

    def start(self, *words: str) -> Command:
        """Start ``hwnas words... --json``."""
        return Command([*self._hwnas, *words, "--json"], self._environ)

    def must(self, *words: str, limit_s: float = 600.0) -> Outcome:
        """Run a command that nobody disturbs. Raises: RuntimeError when it fails."""
        outcome = self.start(*words).finish(limit_s)
        if not outcome.done:
            raise RuntimeError(f"hwnas {' '.join(words)}: {outcome.text[-1000:]}")
        self.witness.look()
        return outcome

    def store_problems(self) -> list[str]:
        """What `hwnas store check` finds."""
        outcome = self.start("store", "check").finish(120.0)
        answer = parsed(outcome.stdout)
        problems = answer.get("problems") if isinstance(answer, dict) else None
        return [outcome.text[-300:]] if problems is None else list(problems)


def make_models(folder: Path, n: int) -> list[str]:
    """Paths of `n` tiny networks, each with its own weights."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(n):
        path = folder / f"net{i}.onnx"
        paths.append(str(path))
        if path.exists():
            continue
        rng = np.random.default_rng(i)
        channels = 4 + 2 * (i % 4)
        weights = rng.standard_normal((channels, 3, 3, 3)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
                helper.make_node("Relu", ["c"], ["y"]),
            ],
            f"soak{i}",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, 16, 16])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        scratch = path.with_suffix(".new")
        onnx.save(model, scratch)
        scratch.replace(path)
    return paths
