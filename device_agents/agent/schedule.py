"""One job, as the worker runs it: load, check, warm up, interleaved blocks, sentinel, energy."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
import traceback
from typing import Any, Callable

from device_agents import power
from device_agents.agent import board, cooling, energy, facts, precision, timing
from device_agents.agent.bench import Bench, Network, matches
from device_agents.agent.protocol import SENTINEL
from device_agents.runtimes import common

_CALM = 0.98
"""CPU time / wall time of the measuring thread when nobody disturbs it."""
_CRASH_SIGNALS = (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)


class DeadlineError(Exception):
    """The job's time is over."""


class JobRun:
    """Runs one job; everything it finds out goes to `emit`.

    Args:
        bench: what is kept between jobs.
        job: a "measure" request, with deadline_ns (monotonic) and resume (see supervisor).
        emit: takes an event; `note` takes the name of the item about to be touched, so that the
            supervisor knows whose fault a crash was.
        work: the work folder.
    """

    def __init__(
        self,
        bench: Bench,
        job: dict[str, Any],
        emit: Callable[[dict[str, Any]], None],
        note: Callable[[str | None], None],
        work: str,
    ) -> None:
        self._bench = bench
        self._job = job
        self._settings = job["settings"]
        self._options = job["options"]
        self._emit = emit
        self._note_to = note
        self._at = None  # type: str | None
        self._work = work
        self._root = bench.root
        self._threads = int(self._options["threads"])
        self._providers = []  # type: list[str]
        # A pool that spins between operators is faster and burns energy doing nothing.
        self._spinning = not self._settings["energy"]
        self._temperatures = facts.temperature_files(self._root)
        self._sentinel = None  # type: Network | None
        self._sentinel_ns = 0
        self._cpu_ns = self._wall_ns = 0
        self._n_sentinel = 0

    def run(self) -> None:
        """Run to the end. Raises: DeadlineError."""
        self._cores = self._settle()
        readable = self._read_all() if self._has_providers() else []
        self._request_memory(readable[0] if readable else None)
        if readable:
            self._start_sentinel()
        warm = self._load_all(readable)
        if warm:
            self._measure_sentinel()
        done = self._rounds(warm)
        if warm:
            self._measure_sentinel()
        self._energies(done)
        self._bench.contended = self._cpu_ns < _CALM * self._wall_ns

    # --- preparing ----------------------------------------------------------------------------

    def _settle(self) -> list[int]:
        """Take cores and priority, say what they are; returns the cores blocks are watched on."""
        resume = self._job.get("resume") or {}
        start = cooling.wait(self._options, self._temperatures, self._check)
        effective = self._bench.settle(self._options, self._threads, resume.get("cores"))
        effective["spinning"] = self._spinning and self._threads > 1
        effective["providers"] = self._options["providers"]
        effective["start_temperature"] = start
        tuned = {item["tuned"] for item in self._job["items"]}
        effective["tuned"] = tuned.pop() if len(tuned) == 1 else None
        effective.update(self._job.get("prepared") or {})
        try:
            self._providers = self._bench.runtime.usable_providers(self._options["providers"])
            effective["providers"] = self._providers
        except common.ModelError:
            pass  # `_has_providers` says which
        self._emit(
            {
                "event": "job_started",
                "environment": board.environment(self._root, self._work),
                "options": {"effective": effective},
            }
        )
        return effective["cores"] or self._bench.everywhere

    def _has_providers(self) -> bool:
        """Fail every item when the runtime lacks a provider that was asked for."""
        if not self._providers:
            for item in self._job["items"]:
                self._guard(Network(item, {}), lambda _: self._ask_providers())
        return bool(self._providers)

    def _ask_providers(self) -> None:
        self._bench.runtime.usable_providers(self._options["providers"])

    def _session(self, spec: dict[str, Any], data: bytes) -> Any:
        return self._bench.runtime.Session(data, **self._how(spec))

    def _how(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a session beside the file's bytes."""
        return {
            "path": os.path.join(self._work, spec["path"]),
            "threads": self._threads,
            "providers": self._providers,
            "spinning": self._spinning,
            "input_seed": spec.get("input_seed", 0),
            "inputs": spec.get("inputs"),
        }

    def _key(self, spec: dict[str, Any]) -> Any:
        cores = tuple(self._bench.cores or ()) if self._threads > 1 else ()
        providers = tuple(self._providers)
        return (spec["sha256"], self._threads, providers, self._spinning, cores)

    def _read_all(self) -> list[Network]:
        """Read and check the files; returns those that are what was asked for."""
        resume = (self._job.get("resume") or {}).get("items", {})
        networks = [Network(item, resume.get(item["item"], {})) for item in self._job["items"]]
        return [network for network in networks if self._guard(network, self._read)]

    def _load_all(self, networks: list[Network]) -> list[Network]:
        """Load and warm up every network; returns those that are ready.

        The memory probe of the next network runs on another core beside the warm-up of this one,
        never beside a timed block.
        """
        ready = []
        for index, network in enumerate(networks):
            peak = self._memory_of(network)
            self._request_memory(networks[index + 1] if index + 1 < len(networks) else None)
            if peak.get("signal") in _CRASH_SIGNALS:
                name = signal.Signals(peak["signal"]).name
                message = "loading it in a process of its own was ended by " + name
                self._fail(network, "runtime_crashed", message)
                continue

            def load_and_warm(net: Network, memory: dict[str, Any] = peak) -> None:
                self._load(net, memory)
                self._warm(net)

            if self._guard(network, load_and_warm):
                ready.append(network)
        return ready

    def _read(self, network: Network) -> None:
        path = os.path.join(self._work, network.spec["path"])
        network.data = common.read_artifact(path, network.spec["sha256"])

    def _request_memory(self, network: Network | None) -> None:
        bench = self._bench
        if network is None or bench.zygote is None or self._key(network.spec) in bench.peaks:
            return
        bench.zygote.request(**self._how(network.spec))

    def _memory_of(self, network: Network) -> dict[str, Any]:
        bench, key = self._bench, self._key(network.spec)
        if bench.zygote is None:
            return {"reason": "this system cannot fork"}
        if key in bench.peaks:
            return bench.peaks[key]
        peak = bench.zygote.result()  # type: dict[str, Any]
        if "peak" in peak:
            bench.peaks[key] = peak
        return peak

    def _load(self, network: Network, peak: dict[str, Any]) -> None:
        self._check()
        start_ns = time.perf_counter_ns()
        session = self._session(network.spec, network.data)
        loaded_ns = time.perf_counter_ns()
        session.run()
        first_ns = time.perf_counter_ns() - loaded_ns
        output, finite = session.output()
        network.session, network.data = session, b""
        self._emit(
            {
                "event": "loaded",
                "item": network.name,
                "load_ns": loaded_ns - start_ns,
                "first_ns": first_ns,
                "peak_memory_bytes": peak.get("peak"),
                "runtime_memory_bytes": peak.get("base"),
                "peak_memory_reason": peak.get("reason"),
                "input_shapes": session.input_shapes,
                "providers": session.providers,
                "output": output,
                "output_finite": finite,
                "output_matches": matches(output, network.spec.get("expected")),
                "tuned": network.spec.get("tuned"),
                **getattr(session, "facts", {}),
            }
        )

    # --- measuring ----------------------------------------------------------------------------

    def _warm(self, network: Network) -> None:
        warmed, network.latency_ns = timing.warm_up(
            network.session.run, self._settings, self._settings["warmup_min_s"], self._check
        )
        network.warmup_ns = warmed["duration_ns"]
        self._emit({"event": "warmed", "item": network.name, **warmed})

    def _rounds(self, networks: list[Network]) -> list[Network]:
        """One block of each unfinished network per round, in random order, until all are done."""
        order = random.Random(self._job["seed"])
        unfinished = sorted(networks, key=lambda network: network.name)
        unfinished = [network for network in unfinished if not self._is_done(network)]
        while unfinished:
            order.shuffle(unfinished)
            for network in list(unfinished):
                self._sentinel_if_due()
                if not self._guard(network, self._block) or self._is_done(network):
                    unfinished.remove(network)
        return [network for network in networks if network.stop]

    def _block(self, network: Network) -> None:
        self._check()
        samples_ns = self._timed(network, len(network.medians_ns))
        network.medians_ns.append(statistics.median(samples_ns))
        network.timed_ns += sum(samples_ns)

    def _timed(self, network: Network, index: int) -> list[int]:
        cores, root = self._cores, self._root
        stolen_ns = facts.steal_ns(root, cores)
        throttled = board.throttle_count(root, cores)
        block = timing.timed_block(
            network.session.run, timing.n_runs(self._settings, network.latency_ns)
        )
        self._cpu_ns += block["cpu_ns"]
        self._wall_ns += block["wall_ns"] * self._threads
        clocks = [facts.clock_khz(root, core) for core in cores]
        stolen_after_ns = facts.steal_ns(root, cores)
        throttled_after = board.throttle_count(root, cores)
        block.update(
            event="block",
            item=network.name,
            block=index,
            freq_khz=min((clock for clock in clocks if clock), default=None),
            temperature_c=facts.temperature_c(self._temperatures),
            steal_ns=_difference(stolen_ns, stolen_after_ns),
            throttle=_difference(throttled, throttled_after),
        )
        self._emit(block)
        return list(block["samples_ns"])

    def _is_done(self, network: Network) -> bool:
        """Apply the stop rule; a network that needs no energy windows is finished here."""
        reason, width = precision.stop_reason(self._settings, network.medians_ns, network.timed_ns)
        if reason is None:
            return False
        network.stop, network.ci_rel = reason, width
        if not self._settings["energy"]:
            self._finish(network, {"reason": "not_requested"})
        return True

    def _finish(self, network: Network, energy_facts: dict[str, Any]) -> None:
        self._emit(
            {
                "event": "finished",
                "item": network.name,
                "n_blocks": len(network.medians_ns),
                "ci_rel": network.ci_rel,
                "stop": network.stop,
                "warmup_ns": network.warmup_ns,
                "timed_ns": network.timed_ns,
                "energy": energy_facts,
            }
        )

    # --- the sentinel -------------------------------------------------------------------------

    def _start_sentinel(self) -> None:
        """Load it and warm it up, while the first memory probe runs."""
        spec = self._job.get("sentinel")
        if spec is None:
            return
        network = Network({"item": SENTINEL, "input_seed": 0, **spec}, {})
        key = self._key(network.spec)
        was_warm = key in self._bench.sentinels

        def prepare(sentinel: Network) -> None:
            if not was_warm:
                self._bench.sentinels.clear()
                self._read(sentinel)
                self._bench.sentinels[key] = self._session(sentinel.spec, sentinel.data)
            sentinel.session = self._bench.sentinels[key]
            # Kept from the job before, it only has to get its caches back.
            min_s = 0.0 if was_warm else self._settings["warmup_min_s"]
            warmed, sentinel.latency_ns = timing.warm_up(
                sentinel.session.run, self._settings, min_s, self._check
            )
            self._emit({"event": "warmed", "item": SENTINEL, **warmed})

        if self._guard(network, prepare):
            self._sentinel = network
            # After a crash the numbering goes on where the last worker stopped.
            self._n_sentinel = int((self._job.get("resume") or {}).get("n_sentinel", 0))

    def _measure_sentinel(self) -> None:
        def measure(sentinel: Network) -> None:
            self._check()
            self._timed(sentinel, self._n_sentinel)

        if self._sentinel is not None:
            if not self._guard(self._sentinel, measure):
                self._sentinel = None
            self._n_sentinel += 1
            self._sentinel_ns = time.monotonic_ns()

    def _sentinel_if_due(self) -> None:
        gap_s = (time.monotonic_ns() - self._sentinel_ns) / 1e9
        if self._sentinel is not None and gap_s >= self._settings["sentinel_max_gap_s"]:
            self._measure_sentinel()

    # --- energy -------------------------------------------------------------------------------

    def _energies(self, networks: list[Network]) -> None:
        """Measure the energy of each network; the idle window between two serves both."""
        if not self._settings["energy"] or not networks:
            return
        source = power.describe(self._root)
        read_uj = power.open_counter(self._root)
        if read_uj is None:
            for network in networks:
                self._finish(network, {k: source[k] for k in ("reason", "detail", "hint")})
            return
        self._note(None)
        idle = energy.idle_power(read_uj, self._check)
        for network in networks:
            before = idle
            taken = []  # type: list[Any]

            def loop(net: Network, into: list[Any] = taken) -> None:
                into.extend(energy.active_windows(net.session.run, read_uj, self._check))

            if not self._guard(network, loop):
                continue
            idle = energy.idle_power(read_uj, self._check)
            label_ns = statistics.median(network.medians_ns)
            found = energy.summarise(taken, before, idle, label_ns)
            self._finish(network, {"sensor": source["source"], "scope": source["scope"], **found})

    # --- small things -------------------------------------------------------------------------

    def _guard(self, network: Network, step: Callable[[Network], object]) -> bool:
        """Do one step of one network; returns False, and says why, when it failed."""
        self._note(network.name)
        try:
            step(network)
        except DeadlineError:
            raise
        except Exception as exc:
            traceback.print_exc()
            code, message = self._bench.runtime.failure_of(exc)
            self._fail(network, code, message)
            return False
        return True

    def _fail(self, network: Network, code: str, message: str) -> None:
        network.session = None
        self._emit({"event": "failed", "item": network.name, "code": code, "message": message})

    def _note(self, name: str | None) -> None:
        if name != self._at:
            self._at = name
            self._note_to(name)

    def _check(self) -> None:
        if time.monotonic_ns() > self._job["deadline_ns"]:
            raise DeadlineError


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before
