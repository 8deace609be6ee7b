"""The child in which TVM runs, with a stand-in that crashes, hangs and answers on request."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from importlib import metadata

import pytest

from hwnas_sdk._tvm import versions
from hwnas_sdk._tvm.process import TvmProcess
from hwnas_sdk.core.errors import ExportError, MissingExtraError

STAND_IN = """
import json, os, signal, sys, time
for line in sys.stdin:
    request = json.loads(line)
    do = request["do"]
    if do == "crash":
        print("LLVM ERROR: no such register", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
    if do == "exit":
        sys.exit(3)
    if do == "hang":
        time.sleep(60)
    if do == "refuse":
        error = {"code": "tvm_build", "message": "no", "hint": "h"}
        print(json.dumps({"error": error}), flush=True)
        continue
    print(json.dumps({"ok": {"pid": os.getpid(), "fields": request}}), flush=True)
"""


@pytest.fixture
def process() -> Iterator[TvmProcess]:
    with TvmProcess([sys.executable, "-c", STAND_IN]) as started:
        yield started


def test_one_child_serves_all_requests(process: TvmProcess) -> None:
    assert process.pid is None
    first = process.request("work", timeout_s=20.0, onnx="a\nb é")
    second = process.request("work", timeout_s=20.0)
    assert first["fields"]["onnx"] == "a\nb é"
    assert first["pid"] == second["pid"] == process.pid


def test_a_crash_is_an_error_with_its_last_words_and_the_next_request_works(
    process: TvmProcess,
) -> None:
    with pytest.raises(ExportError, match="signal 6: LLVM ERROR: no such register") as caught:
        process.request("crash", timeout_s=20.0)
    assert caught.value.code == "tvm_crashed"
    assert process.request("work", timeout_s=20.0)["pid"] == process.pid


def test_an_exit_is_a_crash_too(process: TvmProcess) -> None:
    with pytest.raises(ExportError, match="status 3"):
        process.request("exit", timeout_s=20.0)


@pytest.mark.alone
def test_a_child_that_hangs_is_killed(process: TvmProcess) -> None:
    pid = process.request("work", timeout_s=20.0)["pid"]
    began_s = time.monotonic()
    with pytest.raises(ExportError) as caught:
        process.request("hang", timeout_s=0.3)
    assert caught.value.code == "tvm_timeout"
    assert time.monotonic() - began_s < 5.0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_the_child_refuses_keeps_its_code(process: TvmProcess) -> None:
    with pytest.raises(ExportError) as caught:
        process.request("refuse", timeout_s=20.0)
    assert (caught.value.code, caught.value.hint) == ("tvm_build", "h")
    assert process.pid is not None


def test_closing_ends_the_child() -> None:
    process = TvmProcess([sys.executable, "-c", STAND_IN])
    pid = process.request("work", timeout_s=20.0)["pid"]
    process.close()
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("tvm", "ffi", "fits"),
    [
        ("0.27.0.post1", "0.1.14.post1", True),
        ("0.27.0.post1", "0.1.14", True),
        ("0.27.0.post1", "0.1.15.post2", False),
        ("0.27.0.post1", "0.1.140", False),
        ("0.28.0", "0.1.14.post1", False),
    ],
)
def test_only_a_pair_that_was_tried_is_used(
    tvm: str, ffi: str, *, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"apache-tvm": tvm, "apache-tvm-ffi": ffi}
    monkeypatch.setattr(versions.metadata, "version", installed.__getitem__)
    if fits:
        assert versions.installed_version("x") == tvm
        return
    with pytest.raises(ExportError) as caught:
        versions.installed_version("x")
    assert caught.value.code == "tvm_pair"
    assert "\n" not in str(caught.value)


def test_without_tvm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions.metadata, "version", absent)
    with pytest.raises(MissingExtraError, match="hwnas-sdk\\[tvm\\]"):
        versions.installed_version("the runtime TVM")


def test_rpc_names_the_package_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed_version", lambda _purpose: "0.27.0.post1")
    monkeypatch.setattr(versions, "find_spec", lambda name: None if name == "tornado" else name)
    with pytest.raises(MissingExtraError, match="tornado"):
        versions.check_rpc("a tvm-rpc device")
