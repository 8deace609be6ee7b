"""``tvm-rpc://HOST:PORT/KEY``: a board behind a TVM RPC tracker. Experimental.

Options: ``target=`` (what the board is: aarch64, aarch64:cortex-a72, armv7, x86_64), ``machine=``
(bare, virtualised or emulated: TVM's server does not say), ``via=ssh://user@host`` (reach tracker
and server through SSH), ``insecure=yes`` (talk to another host without a tunnel: RPC has no
authentication, whoever reaches the port runs code on the board).

The board is leased from the tracker for each job. It times itself (``time_evaluator``) and tells
block means, no single runs: such records are marked ``summary_only``.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from hwnas_sdk._tvm.process import TvmProcess
from hwnas_sdk._tvm.versions import check_rpc, installed_version
from hwnas_sdk.core import stats
from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock
from hwnas_sdk.core.errors import ConfigError, DeviceError, HwnasError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.ids import content_id
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Artifact, DeviceSpec, MachineKind, Origin
from hwnas_sdk.devices.drivers._keeps_nothing import KeepsNothingSession
from hwnas_sdk.devices.drivers._tvm_tunnel import Tunnel
from hwnas_sdk.devices.jobs import Block, ItemResult, JobItem, JobResult, MeasureJob
from hwnas_sdk.devices.uri import DeviceUri

MACHINES: Final[Mapping[str, MachineKind]] = {
    "bare": "bare",
    "virtualised": "virtualised",
    "emulated": "emulated",
}
_OPTIONS = ("target", "machine", "via", "insecure")
_CONNECT_S: Final = 10.0
_LOOK_S: Final = 120.0
"""Beginning with the import of TVM, on a machine that may be busy."""
LEASE_WAIT_S: Final = 120.0
_JOB_S: Final = 3600.0
_SENTINEL = "@sentinel"


class TvmRpcSession(KeepsNothingSession):
    """Runs compiled libraries on a server of a TVM tracker."""

    def __init__(
        self,
        *,
        name: str,
        uri: str,
        host: str,
        port: int,
        key: str,
        target: str,
        machine: MachineKind,
        tunnel: Tunnel | None = None,
        lease_wait_s: float = LEASE_WAIT_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Ask the tracker whether somebody answers for `key`.

        Raises: DeviceError "rpc_unreachable", MissingExtraError without TVM.
        """
        check_rpc("a tvm-rpc device")
        super().__init__(name)
        self.origin: Origin = "measured"
        self.needs_artifacts = True
        self._tunnel = tunnel
        self._clock = clock
        self._lease_wait_s = lease_wait_s
        self._where: dict[str, Any] = {"host": host, "port": port, "key": key}
        self._process = TvmProcess()
        try:
            found = self._look()
        except BaseException:
            self.close()
            raise
        version = installed_version("a tvm-rpc device")
        fingerprint = content_id([uri.partition("?")[0], target], length=16)
        self.spec = DeviceSpec(
            id=f"{name}@{fingerprint[:8]}",
            name=name,
            uri=uri,
            family="tvm-rpc",
            soc=f"{key} ({target})",
            cores=1,
            memory_mib=0,
            machine=machine,
            runtimes={"tvm": version},
            power_source=None,
            power_reason="no_sensor",
            details={
                "device": {"family": "tvm-rpc", "arch": target.partition(":")[0], "soc": target},
                "runtimes": {"tvm": {"version": version}},
                "tvm_target": target,
                "servers": found["servers"],
            },
        )

    @property
    def address(self) -> dict[str, Any]:
        """Where the tracker is: host, port, key."""
        return dict(self._where)

    def probe(self) -> dict[str, Any]:
        """Ask the tracker again."""
        self._refuse_when_closed()
        found = self._look()
        return {
            "device": dict(self.spec.details["device"]),
            "environment": {"free": found["free"], "pending": found["pending"]},
            "runtimes": {"tvm": {"version": self.spec.runtimes["tvm"]}},
            "power": {"source": None, "reason": "no_sensor"},
            "quiet": {},
        }

    def measure(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult:
        """Lease the board, run every network, give it back; see `DeviceSession.measure`."""
        self._refuse_when_closed()
        began_s = self._clock.monotonic_s()
        measured_at = self._clock.now().isoformat(timespec="milliseconds")
        self._lease(on_event)
        sentinel: list[Block] = []
        results: list[ItemResult] = []
        try:
            reference = job.sentinel
            if reference is not None and self._prepare_sentinel(reference):
                sentinel.append(self._sentinel_block(job.settings))
            for number, entry in enumerate(job.items, start=1):
                results.append(self._item(entry, job.settings))
                self._finished("measure", job, entry, number, on_event)
            if sentinel:
                sentinel.append(self._sentinel_block(job.settings))
        except BaseException:
            # The server ends a session whose client is gone: closing is the way to stop it.
            self._process.close()
            raise
        self._request("rpc_release", timeout_s=_LOOK_S)
        timed_s = sum(float(entry.facts.get("timed_s", 0.0)) for entry in results)
        return JobResult(
            job_id=job.id,
            items=tuple(results),
            sentinel=tuple(sentinel),
            timed_s=timed_s,
            wall_s=self._clock.monotonic_s() - began_s,
            environment={
                "measured_at": measured_at,
                "rpc": {**self._where, "tunnel": self._tunnel is not None},
                "options": {
                    "runtime": "tvm",
                    "runtime_version": self.spec.runtimes["tvm"],
                    "feed": "time_evaluator over RPC",
                },
            },
        )

    def close(self) -> None:
        """End the client and the tunnel; a lease ends with them."""
        super().close()
        self._process.close()
        if self._tunnel is not None:
            self._tunnel.close()

    # --- one network --------------------------------------------------------------------------

    def _item(self, entry: JobItem, settings: MeasureSettings) -> ItemResult:
        artifact = entry.artifact
        refusal = _refusal(artifact)
        if refusal is not None:
            code, message = refusal
            return ItemResult(item=entry.item, error_code=code, error_message=message)
        assert artifact is not None
        try:
            ran = self._run(entry.item, artifact, entry.input_seed)
            means_s = self._time(entry.item, settings, first_s=float(ran["first_s"]))
        except DeviceError as exc:
            if exc.code in {"rpc_unreachable", "tvm_crashed", "tvm_timeout"}:
                raise
            return ItemResult(
                item=entry.item, error_code="runtime_error", error_message=exc.message
            )
        means_ms = [value * 1e3 for value in means_s]
        return ItemResult(
            item=entry.item,
            summary_latency_ms=float(np.median(means_ms)),
            load_ms=1e3 * float(ran["load_s"]),
            first_ms=1e3 * float(ran["first_s"]),
            energy_reason="no_sensor" if settings.energy else "not_requested",
            facts={
                "block_summaries_ms": means_ms,
                "output": ran["output"],
                "output_finite": ran["finite"],
                "output_matches": matches(ran["output"], entry.expected),
                "timed_s": sum(means_s),
                "tuned": artifact.tuned,
            },
        )

    def _run(self, name: str, artifact: Artifact, input_seed: int) -> dict[str, Any]:
        return self._request(
            "rpc_run",
            timeout_s=_JOB_S,
            name=name,
            path=artifact.path,
            inputs=[list(entry) for entry in artifact.inputs],
            input_seed=input_seed,
        )

    def _time(self, name: str, settings: MeasureSettings, *, first_s: float) -> list[float]:
        """Block means in seconds, until they are precise enough or there are enough of them."""
        self._blocks(name, settings.warmup_min_runs, 1, settings.warmup_min_s)
        number = max(1, min(settings.block_min_runs, math.ceil(settings.max_timed_s / first_s)))
        means = self._blocks(name, number, settings.min_blocks, settings.block_min_s)
        while len(means) < settings.max_blocks:
            width = stats.ci_half_width(np.array(means))
            precise = width is not None and width <= settings.ci_rel_target * float(
                np.median(means)
            )
            spent_s = len(means) * max(settings.block_min_s, number * float(np.median(means)))
            if precise or spent_s >= settings.max_timed_s:
                break
            means += self._blocks(name, number, 1, settings.block_min_s)
        return means

    def _blocks(self, name: str, number: int, repeat: int, block_s: float) -> list[float]:
        reply = self._request(
            "rpc_time",
            timeout_s=_JOB_S,
            name=name,
            number=max(1, number),
            repeat=repeat,
            min_repeat_ms=round(1e3 * block_s),
        )
        return [float(value) for value in reply["seconds"]]

    def _prepare_sentinel(self, artifact: Artifact) -> bool:
        if _refusal(artifact) is not None:
            return False
        self._run(_SENTINEL, artifact, 0)
        return True

    def _sentinel_block(self, settings: MeasureSettings) -> Block:
        (mean_s,) = self._blocks(_SENTINEL, settings.block_min_runs, 1, settings.block_min_s)
        return Block(
            samples_ns=np.array([round(mean_s * 1e9)], dtype=np.int64),
            cpu_ns=None,
            wall_ns=None,
            t_ns=time.monotonic_ns(),
        )

    # --- the tracker --------------------------------------------------------------------------

    def _look(self) -> dict[str, Any]:
        self._check_port()
        found = self._request("rpc_look", timeout_s=_LOOK_S, **self._where)
        if found["servers"] == 0 and found["free"] == 0:
            known = ", ".join(found["keys"]) or "none"
            raise DeviceError(
                f"no TVM server answers for {self._where['key']!r} (the tracker knows: {known})",
                device_id=self._name,
                code="rpc_unreachable",
                hint="on the board: python -m tvm.exec.rpc_server --tracker HOST:PORT --key KEY",
                retryable=True,
            )
        if self._tunnel is not None:
            for address in found["addresses"]:
                self._tunnel.forward(int(address[1]))
        return found

    def _check_port(self) -> None:
        """Find out now that nobody listens: TVM's client would try for a minute."""
        host, port = self._where["host"], self._where["port"]
        try:
            socket.create_connection((host, port), timeout=_CONNECT_S).close()
        except OSError as exc:
            raise DeviceError(
                f"{self._name}: no TVM tracker answers at {host}:{port}: {exc}",
                device_id=self._name,
                code="rpc_unreachable",
                hint="start one there: python -m tvm.exec.rpc_tracker "
                f"--port {port} --port-end {port + 1}",
                retryable=True,
            ) from exc

    def _lease(self, on_event: EventSink) -> None:
        found = self._look()
        if found["free"] == 0:
            on_event(Event(f"lease {self._name}", message=f"{self._name} is busy, waiting"))
        try:
            self._request(
                "rpc_lease", timeout_s=self._lease_wait_s, session_s=_JOB_S, **self._where
            )
        except DeviceError as exc:
            if exc.code != "tvm_timeout":
                raise
            raise DeviceError(
                f"{self._name!r} is in use by another client of its tracker; "
                f"waited {self._lease_wait_s:.0f} s",
                device_id=self._name,
                code="board_busy",
                hint="try again when the other run has ended",
                retryable=True,
            ) from exc

    def _request(self, do: str, *, timeout_s: float, **fields: Any) -> dict[str, Any]:
        try:
            return self._process.request(do, timeout_s=timeout_s, **fields)
        except HwnasError as exc:
            raise DeviceError(
                f"{self._name}: {exc.message}",
                device_id=self._name,
                code=exc.code,
                hint=exc.hint,
                retryable=exc.retryable,
            ) from exc


def matches(output: list[float | None], expected: tuple[float, ...] | None) -> bool | None:
    """Whether `output` equals the host's as the agent judges it (device_agents/README.md)."""
    if expected is None:
        return None
    if len(output) != len(expected) or None in output:
        return False
    floor = 1e-4 * max((abs(value) for value in expected), default=0.0) + 1e-6
    return all(
        got is not None and abs(got - value) <= 1e-3 * abs(value) + floor
        for got, value in zip(output, expected, strict=True)
    )


def _refusal(artifact: Artifact | None) -> tuple[str, str] | None:
    """Why a file cannot be run here: error code and message."""
    from pathlib import Path

    if artifact is None or not Path(artifact.path).is_file():
        return "artifact_missing", "the job names no file that is there"
    if artifact.format != "tvm":
        return "model_unsupported", "a tvm-rpc device runs compiled libraries: --runtime tvm"
    return None


def open_tvm_rpc(uri: DeviceUri, *, name: str) -> TvmRpcSession:
    """Connect to the tracker of `uri`.

    Raises: ConfigError for a bad URI or one that leaves this host unprotected, DeviceError when
        nobody answers.
    """
    uri.check_options(*_OPTIONS)
    host, port, key = _split(uri)
    target = uri.options.get("target")
    machine = MACHINES.get(uri.options.get("machine", ""))
    if target is None or machine is None:
        raise ConfigError(
            f"{uri.text!r} must say what the board is: TVM's server does not",
            code="bad_uri",
            hint="add ?target=aarch64:cortex-a72&machine=bare (or virtualised, emulated)",
        )
    via = uri.options.get("via")
    if via is None:
        if not _is_loopback(host) and uri.options.get("insecure") != "yes":
            raise ConfigError(
                f"TVM's RPC to {host} has no authentication and no encryption",
                code="insecure_rpc",
                hint="tunnel it: ?via=ssh://user@host, or allow it in a closed lab: insecure=yes",
            )
        return TvmRpcSession(
            name=name, uri=uri.text, host=host, port=port, key=key, target=target, machine=machine
        )
    tunnel = Tunnel(DeviceUri.parse(via), remote_host=host, device_id=name)
    try:
        local = tunnel.forward(port, same=False)
        return TvmRpcSession(
            name=name,
            uri=uri.text,
            host="127.0.0.1",
            port=local,
            key=key,
            target=target,
            machine=machine,
            tunnel=tunnel,
        )
    except BaseException:
        tunnel.close()
        raise


def _split(uri: DeviceUri) -> tuple[str, int, str]:
    place, _, key = uri.path.partition("/")
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or not key or "/" in key:
        raise ConfigError(
            f"{uri.text!r} does not name a tracker and a key",
            code="bad_uri",
            hint="tvm-rpc://HOST:PORT/KEY?target=aarch64&machine=bare",
        )
    return host.strip("[]"), int(port), key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
