"""`tvm-rpc:`: what is refused without a tracker, and the conformance suite with a real one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest
from tvm_networks import tiny_artifact

from hwnas_sdk.core.errors import ConfigError, DeviceError
from hwnas_sdk.devices import open_session
from hwnas_sdk.devices.drivers._tvm_tunnel import Tunnel
from hwnas_sdk.devices.drivers.tvm_rpc import TvmRpcSession, matches, open_tvm_rpc
from hwnas_sdk.devices.jobs import JobItem
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.devices.uri import DeviceUri
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.export.tvm import TvmCompiler
from hwnas_sdk.export.tvm_target import host_target
from hwnas_sdk.testing.device import DeviceConformance
from hwnas_sdk.workflows.reference import expected_output

ABOUT = "target=x86_64&machine=virtualised"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        open_tvm_rpc(DeviceUri.parse(text), name="board")
    return caught.value


def test_another_host_is_reached_through_a_tunnel_or_on_purpose() -> None:
    error = refused(f"tvm-rpc://10.0.0.7:9190/rpi4?{ABOUT}")
    assert error.code == "insecure_rpc"
    assert "via=ssh://" in error.hint


@pytest.mark.parametrize(
    "text",
    [
        f"tvm-rpc://127.0.0.1/rpi4?{ABOUT}",
        f"tvm-rpc://127.0.0.1:9190?{ABOUT}",
        f"tvm-rpc://127.0.0.1:99999/rpi4?{ABOUT}",
        f"tvm-rpc://:9190/rpi4?{ABOUT}",
        "tvm-rpc://127.0.0.1:9190/rpi4?target=aarch64",
        "tvm-rpc://127.0.0.1:9190/rpi4?machine=bare",
        "tvm-rpc://127.0.0.1:9190/rpi4?target=aarch64&machine=perhaps",
    ],
)
def test_a_uri_names_tracker_key_and_what_the_board_is(text: str) -> None:
    assert refused(text).code == "bad_uri"


def test_unknown_options_are_named() -> None:
    assert "tunnel" in refused("tvm-rpc://127.0.0.1:9190/k?tunnel=1").message


def test_outputs_are_judged_like_the_agent_judges_them() -> None:
    assert matches([1.0, 2.0], None) is None
    assert matches([1.0, 2.0005], (1.0, 2.0)) is True
    assert matches([1.0, 2.1], (1.0, 2.0)) is False
    assert matches([1.0], (1.0, 2.0)) is False
    assert matches([None, 2.0], (1.0, 2.0)) is False


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a real tracker, with one real server for the key "bench"."""
    folder = tmp_path_factory.mktemp("rpc")
    port, server_port = free_port(), free_port()
    commands = [
        ["tvm.exec.rpc_tracker", "--host=127.0.0.1", f"--port={port}", f"--port-end={port + 1}"],
        ["tvm.exec.rpc_server", "--host=127.0.0.1", f"--port={server_port}",
         f"--port-end={server_port + 1}", f"--tracker=127.0.0.1:{port}", "--key=bench"],
    ]  # fmt: skip
    running = []
    try:
        with (folder / "log").open("wb") as log:
            for command in commands:
                words = [sys.executable, "-m", *command]
                running.append(
                    subprocess.Popen(
                        words, stdout=log, stderr=log, cwd=folder, start_new_session=True
                    )
                )
                wait_for_port(port, running)
        # A server tells the tracker its key some time after both listen.
        open_when_ready(f"tvm-rpc://127.0.0.1:{port}/bench?{ABOUT}").close()
        yield port
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)  # both keep workers
            process.wait()


def wait_for_port(port: int, running: Sequence[subprocess.Popen[bytes]]) -> None:
    end_s = time.monotonic() + 120.0
    while time.monotonic() < end_s:
        assert all(process.poll() is None for process in running), "ended by itself"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        time.sleep(0.2)
    pytest.fail(f"nobody listens at port {port}")


def open_when_ready(uri: str, *, seconds: float = 120.0) -> TvmRpcSession:
    end_s = time.monotonic() + seconds
    while True:
        try:
            session = open_session(uri)
        except DeviceError as exc:
            if exc.code != "rpc_unreachable" or time.monotonic() > end_s:
                raise
            time.sleep(1.0)
        else:
            assert isinstance(session, TvmRpcSession)
            return session


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestTvmRpc(DeviceConformance):
    @pytest.fixture(autouse=True)
    def _board(self, tracker: int, libraries: Sequence[JobItem]) -> None:
        self._uri = f"tvm-rpc://127.0.0.1:{tracker}/bench?{ABOUT}"
        self._libraries = libraries

    def open(self) -> DeviceSession:
        return open_when_ready(self._uri)

    def items(self, n: int) -> Sequence[JobItem]:
        return self._libraries[:n]

    def test_outputs_equal_onnx_runtimes(self) -> None:
        with self.open() as session:
            job = self.job("outputs")
            result = session.measure(job)
            for entry, record in zip(result.items, self.records(session, job, result), strict=True):
                assert entry.facts["output_matches"] is True
                assert "summary_only" in record.flags
                assert record.details["runtime"]["tuned"] is False
                assert len(entry.facts["block_summaries_ms"]) >= job.settings.min_blocks

    def test_a_second_client_waits_and_is_then_told_who_has_the_board(self) -> None:
        with self.open() as first, self.open() as second:
            assert isinstance(first, TvmRpcSession)
            assert isinstance(second, TvmRpcSession)
            first._lease(lambda _event: None)
            second._lease_wait_s = 3.0
            with pytest.raises(DeviceError) as caught:
                second.measure(self.job("second"))
            assert caught.value.code == "board_busy"
            first._request("rpc_release", timeout_s=30.0)

    def test_a_key_nobody_answers_for(self) -> None:
        uri = self._uri.replace("/bench", "/nobody")
        with pytest.raises(DeviceError, match=r"'nobody'.*knows: bench") as caught:
            open_session(uri)
        assert caught.value.code == "rpc_unreachable"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Sequence[JobItem]:
    folder = tmp_path_factory.mktemp("libraries")
    cache = ArtifactCache(folder / "cache")
    items = []
    with TvmCompiler(cache, host_target()) as compiler:
        for channels in (4, 8, 12):
            source = tiny_artifact(folder, cache, channels=channels)
            library = compiler.compile(source)
            items.append(
                JobItem(
                    f"i{channels}", library.arch_id, f"tiny{channels}", library,
                    expected_output(source),
                )
            )  # fmt: skip
    return items


def test_no_tracker_is_an_error_of_one_line() -> None:
    with pytest.raises(DeviceError, match="no TVM tracker answers") as caught:
        open_session(f"tvm-rpc://127.0.0.1:{free_port()}/k?{ABOUT}")
    assert caught.value.code == "rpc_unreachable"
    assert "rpc_tracker" in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_tunnel_reports_a_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    from hwnas_sdk.devices.drivers import _tvm_tunnel

    class Connection:
        def close(self) -> None:
            pass

    monkeypatch.setattr(_tvm_tunnel, "connect", lambda *_a, **_k: Connection())
    tunnel = Tunnel(DeviceUri.parse("ssh://pi@10.0.0.7"), remote_host="127.0.0.1", device_id="b")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DeviceError) as caught:
            tunnel.forward(int(taken.getsockname()[1]))
    assert caught.value.code == "port_taken"
    assert tunnel.forward(9190, same=False) == tunnel.forward(9190, same=False)
    tunnel.close()
