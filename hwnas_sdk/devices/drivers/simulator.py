"""``sim:`` devices: an accelerator that exists as a description answers with a model's numbers.

``sim://eyeriss``, ``sim://fpga`` or ``sim:///path/to/accelerator.yaml``, each with
``[?dataset=cifar10][&pooling=modelled|dense_conv][&clock_mhz=MHZ]``

Latency is milliseconds of compute for one inference of batch 1, energy that of the description's
scope. Origin is "simulated"; what was modelled how stands in every record.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

from hwnas_sdk import _resources
from hwnas_sdk.core.clock import SYSTEM_CLOCK, Clock
from hwnas_sdk.core.errors import ConfigError, ExportError, SpaceError
from hwnas_sdk.core.events import EventSink, ignore
from hwnas_sdk.core.ids import content_id
from hwnas_sdk.core.layers import LayerGraph
from hwnas_sdk.core.types import Architecture, DeviceSpec, Origin
from hwnas_sdk.core.unique_layers import ID_PREFIX as LAYER_PREFIX
from hwnas_sdk.core.unique_layers import UniqueLayer
from hwnas_sdk.devices.drivers._keeps_nothing import KeepsNothingSession
from hwnas_sdk.devices.jobs import ItemResult, JobItem, JobResult, MeasureJob
from hwnas_sdk.devices.uri import DeviceUri
from hwnas_sdk.simulators.description import (
    SHIPPED,
    AcceleratorDescription,
    load_description,
    shipped_path,
)
from hwnas_sdk.simulators.simulator import Simulator
from hwnas_sdk.simulators.workload import Pooling
from hwnas_sdk.spaces import get_space


class SimulatorSession(KeepsNothingSession):
    """Costs the layer graphs of a job's networks; nothing is exported, pushed, timed or kept."""

    def __init__(
        self,
        simulator: Simulator,
        *,
        name: str,
        uri: str,
        dataset: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Serve `simulator`; `dataset` sets the networks' input, None is their space's default."""
        super().__init__(name)
        self.origin: Origin = "simulated"
        self.needs_artifacts = False
        self._simulator = simulator
        self._dataset = dataset
        self._clock = clock
        description = simulator.description
        facts = {**simulator.facts(), "dataset": dataset or "default"}
        self.spec = DeviceSpec(
            id=f"{name}@{content_id(facts, length=8)}",
            name=name,
            uri=uri,
            family="simulator",
            soc=description.title,
            cores=1,
            memory_mib=0,
            machine="bare",
            runtimes={str(facts["engine"]): simulator.engine_version},
            power_source="model",
            details={**facts, "elements": description.array.n_elements},
        )

    def probe(self) -> dict[str, Any]:
        """Describe the accelerator."""
        self._refuse_when_closed()
        facts = self._simulator.facts()
        return {
            "device": {"family": "simulator", "soc": self.spec.soc, "machine": "bare"},
            "environment": {},
            "runtimes": {facts["engine"]: {"version": facts["engine_version"]}},
            "power": {"source": "model", "reason": None},
            "quiet": {},
        }

    def measure(self, job: MeasureJob, *, on_event: EventSink = ignore) -> JobResult:
        """Cost every item; the first networks of a new description take seconds."""
        self._refuse_when_closed()
        started_s = self._clock.monotonic_s()
        results = []
        for number, entry in enumerate(job.items, start=1):
            results.append(self._cost(entry, batch=job.settings.batch))
            self._finished("simulate", job, entry, number, on_event)
        return JobResult(
            job_id=job.id,
            items=tuple(results),
            wall_s=self._clock.monotonic_s() - started_s,
            environment={
                **self._simulator.facts(),
                "dataset": self._dataset or "default",
                "options": {"runtime_version": self._simulator.engine_version},
                "measured_at": self._clock.now().isoformat(timespec="milliseconds"),
            },
        )

    def _cost(self, entry: JobItem, *, batch: int) -> ItemResult:
        if batch != 1:
            message = f"a simulator runs batch 1, not {batch}"
            return ItemResult(
                item=entry.item, error_code="unsupported_batch", error_message=message
            )
        try:
            cost = self._simulator.cost(self._graph(entry))
        except (ExportError, SpaceError) as exc:
            return ItemResult(item=entry.item, error_code=exc.code, error_message=exc.message)
        return ItemResult(
            item=entry.item,
            summary_latency_ms=cost.latency_ms + self._started_ms(entry),
            energy_mj=cost.energy_mj or None,
            facts={
                "simulation": {
                    **self._simulator.facts(),
                    "outermost_memory_energy_mj": cost.outer_energy_mj,
                    "layers": cost.by_op(),
                }
            },
        )

    def _started_ms(self, entry: JobItem) -> float:
        """One clock cycle for a layer alone.

        A time of nothing cannot be told from one that was not measured, and fused layers take none.
        The network that does nothing gets the cycle too, so a look-up table takes it off again.
        """
        is_layer = entry.arch_id.startswith(LAYER_PREFIX)
        return 1e-3 / self._simulator.description.clock_mhz if is_layer else 0.0

    def _graph(self, entry: JobItem) -> LayerGraph:
        if entry.arch_id.startswith(LAYER_PREFIX):
            return UniqueLayer.of_key(entry.arch).graph()
        if entry.arch_id.startswith("file:"):
            raise ExportError(
                f"{entry.arch}: a simulator needs a network of a search space, not a file",
                code="unsupported_network",
            )
        architecture = Architecture.of_id(entry.arch_id)
        space = get_space(architecture.space)
        return space.layers(architecture, dataset=self._dataset, folded=entry.folded)


def open_simulator(uri: DeviceUri, *, name: str) -> SimulatorSession:
    """Read the description and serve it.

    Raises: ConfigError for an unknown accelerator or option and for a wrong description (naming the
        key), MissingExtraError without the extra ``sim``.
    """
    uri.check_options("dataset", "pooling", "clock_mhz")
    description = described(uri.path)
    if "clock_mhz" in uri.options:
        clock_mhz = uri.number("clock_mhz", description.clock_mhz)
        if not clock_mhz > 0.0:
            raise ConfigError(f"clock_mhz must be positive in {uri.text!r}")
        description = AcceleratorDescription.model_validate(
            {**description.model_dump(), "clock_mhz": clock_mhz}
        )
    pooling = uri.options.get("pooling", "modelled")
    if pooling not in get_args(Pooling):
        raise ConfigError(
            f"unknown pooling {pooling!r} in {uri.text!r}",
            hint=f"one of {', '.join(get_args(Pooling))}",
        )
    dataset = uri.options.get("dataset")
    known = get_space("nasbench201").datasets
    if dataset is not None and dataset not in known:
        close = difflib.get_close_matches(dataset, known, n=1) or known
        raise ConfigError(
            f"unknown data set {dataset!r} in {uri.text!r}", hint=f"for example {close[0]}"
        )
    simulator = Simulator(
        description,
        cache_folder=_resources.simulator_cache_path(),
        pooling=pooling,  # type: ignore[arg-type]  # checked above
    )
    return SimulatorSession(simulator, name=name, uri=uri.text, dataset=dataset)


def described(path: str) -> AcceleratorDescription:
    """Description called `path`: a shipped name, or a file.

    Raises: ConfigError.
    """
    if not path:
        raise ConfigError(
            "the URI names no accelerator",
            hint=f"sim://NAME with NAME one of {', '.join(SHIPPED)}, or sim:///path/to/file.yaml",
        )
    is_file = path not in SHIPPED and ("/" in path or path.endswith((".yaml", ".yml")))
    return load_description(Path(path).expanduser() if is_file else shipped_path(path))
