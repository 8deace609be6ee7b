"""ZigZag behind one function: an accelerator and a layer's loops in, cycles and energy out.

The only module that knows ZigZag. Its Python interface is used rather than its ONNX import: no
file is written, no network is parsed, and each candidate mapping is one call.
Source: Mei et al., ZigZag: Enlarging Joint Architecture-Mapping Design Space Exploration for DNN
Accelerators, IEEE TC 2021. Package zigzag-dse (MIT).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hwnas_sdk.core.errors import ExportError, MissingExtraError
from hwnas_sdk.simulators.description import AcceleratorDescription, Memory
from hwnas_sdk.simulators.unrolling import Unrolling, unrollings
from hwnas_sdk.simulators.workload import ArrayWork

NAME = "zigzag-dse"
_OPERAND = {"input": "I1", "weight": "I2", "output": "O"}
_LAYER_OPERAND = {"input": "I", "weight": "W", "output": "O"}
_AXIS = {"columns": "D1", "rows": "D2"}
_EQUATION = "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]"
_BYTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayCost:
    """What the engine says of one layer with the mapping that was chosen.

    Attributes:
        cycles: with loading, stalls and storing.
        compute_cycles: passes of the array alone.
        energy_pj: everything, the outermost memory included.
        outer_energy_pj: of the outermost memory alone.
        outer_bytes: moved between the outermost memory and the rest.
        unrolling: spatial mapping, for people.
        n_mappings: mappings evaluated.
    """

    cycles: float
    compute_cycles: float
    energy_pj: float
    outer_energy_pj: float
    outer_bytes: float
    unrolling: str
    n_mappings: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object."""
        return asdict(self)


def engine_version() -> str:
    """Version of the installed engine.

    Raises: MissingExtraError.
    """
    try:
        return version(NAME)
    except PackageNotFoundError:
        raise MissingExtraError(NAME, "sim", purpose="simulating an accelerator") from None


class ZigZagEngine:
    """Evaluates layers on one accelerator.

    Raises: MissingExtraError, when first used, without the extra ``sim``.
    """

    def __init__(self, description: AcceleratorDescription) -> None:
        """Use `description`; the engine is imported when the first layer is evaluated."""
        self._description = description
        self._accelerators: dict[bool, Any] = {}

    def evaluate(self, work: ArrayWork) -> ArrayCost:
        """Cost of `work` with the best of the legal mappings by the description's objective.

        Raises: ExportError "no_mapping" when it fits none of them.
        """
        description = self._description
        rules = description.mapping
        best: tuple[tuple[float, float], Any, Unrolling] | None = None
        n_mappings = 0
        for unrolling in unrollings(work, description.array, rules):
            for found in self._evaluations(work, unrolling):
                n_mappings += 1
                cycles, energy = float(found.latency_total2), float(found.energy_total)
                key = {
                    "latency": (cycles, energy),
                    "energy": (energy, cycles),
                    "edp": (cycles * energy, cycles),
                }[rules.objective]
                if best is None or key < best[0]:
                    best = (key, found, unrolling)
        if best is None:
            raise ExportError(
                f"no legal mapping of {work} on {description.name}",
                code="no_mapping",
                hint="give the innermost memories more room, or the mapping rules more freedom",
            )
        return self._cost(work, best[1], best[2], n_mappings)

    def _cost(
        self, work: ArrayWork, found: Any, unrolling: Unrolling, n_mappings: int
    ) -> ArrayCost:
        outer = self._description.outermost
        n_bits, outer_pj = 0.0, 0.0
        for operand, accesses in found.memory_word_access.items():
            name = next(k for k, v in _LAYER_OPERAND.items() if v == operand.name)
            if work.on_chip and name != "weight":
                continue
            width = outer.width_bits(name, self._description.clock_mhz)  # type: ignore[arg-type]
            n_bits += width * sum(float(n) for n in accesses[-1].data.values())
            outer_pj += float(found.mem_energy_breakdown[operand][-1])
        return ArrayCost(
            cycles=float(found.latency_total2),
            compute_cycles=float(found.ideal_temporal_cycle),
            energy_pj=float(found.energy_total),
            outer_energy_pj=outer_pj,
            outer_bytes=n_bits / _BYTE,
            unrolling=unrolling.text(),
            n_mappings=n_mappings,
        )

    def _evaluations(self, work: ArrayWork, unrolling: Unrolling) -> Iterator[Any]:
        """Cost model evaluations of all orders of the temporal loops; none when nothing fits."""
        from zigzag.mapping.temporal_mapping import TemporalMappingType
        from zigzag.opt.loma.engine import NoValidLoopOrderingFoundException
        from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
        from zigzag.stages.mapping.spatial_mapping_conversion import SpatialMappingConversionStage
        from zigzag.stages.mapping.temporal_mapping_generator_stage import (
            TemporalMappingGeneratorStage,
        )

        accelerator = self._accelerator(on_chip=work.on_chip)
        layer = self._layer(work, unrolling)
        layer.spatial_mapping.initialize_oa_dims(accelerator.operational_array.dimension_sizes)
        stage = SpatialMappingConversionStage(
            [TemporalMappingGeneratorStage, CostModelStage],
            accelerator=accelerator,
            layer=layer,
            loma_lpf_limit=self._description.mapping.loop_factors,
            loma_show_progress_bar=False,
            temporal_mapping_type=TemporalMappingType.UNEVEN,
            access_same_data_considered_as_no_access=True,
        )
        try:
            for evaluation, _ in stage.run():
                yield evaluation
        except NoValidLoopOrderingFoundException:
            return

    def _accelerator(self, *, on_chip: bool) -> Any:
        """The engine's accelerator; with maps on the chip its outermost memory has weights only."""
        if on_chip not in self._accelerators:
            self._accelerators[on_chip] = self._build(on_chip=on_chip)
        return self._accelerators[on_chip]

    def _build(self, *, on_chip: bool) -> Any:
        engine_version()
        logging.getLogger("zigzag").setLevel(logging.ERROR)
        from zigzag.parser.accelerator_factory import AcceleratorFactory
        from zigzag.parser.accelerator_validator import AcceleratorValidator

        array = self._description.array
        memories = list(self._description.memories)
        if on_chip:
            memories[-1] = memories[-1].model_copy(update={"holds": ["weight"]})
        validator = AcceleratorValidator(
            {
                "name": self._description.name,
                "memories": {m.name: self._memory(m) for m in memories},
                "operational_array": {
                    "unit_energy": array.mac_pj,
                    "unit_area": 0.0,
                    "dimensions": ["D1", "D2"],
                    "sizes": [array.columns, array.rows],
                },
            }
        )
        if not validator.validate():  # our own check let something through
            raise ExportError(
                f"{self._description.name}: the engine refuses the accelerator: "
                f"{validator.validator.errors}",
                code="bad_accelerator",
            )
        return AcceleratorFactory(validator.data).create()

    def _memory(self, memory: Memory) -> dict[str, Any]:
        description = self._description
        word = description.precision_bits.activation
        width = max(memory.width_bits(o, description.clock_mhz) for o in memory.holds)
        if memory.ports == "operand":
            ports = [
                port for i, o in enumerate(memory.holds, 1) for port in self._pair(memory, o, i)
            ]
        elif memory.ports == "separate":
            ports = self._pair(memory, memory.holds[0], 1)
            for operand in memory.holds[1:]:
                for port, more in zip(ports, self._pair(memory, operand, 1), strict=True):
                    port["allocation"] += more["allocation"]
        else:
            pairs = [self._pair(memory, operand, 1) for operand in memory.holds]
            every = [line for pair in pairs for port in pair for line in port["allocation"]]
            ports = [
                {**pairs[0][0], "name": "rw_port_1", "type": "read_write", "allocation": every}
            ]
        return {
            "size": memory.size_bytes * _BYTE,
            # The engine charges per access of the port's width, a description per word.
            "r_cost": memory.read_pj * width / word,
            "w_cost": memory.write_pj * width / word,
            "area": 0.0,
            "latency": 1,
            "operands": [_OPERAND[operand] for operand in memory.holds],
            "ports": ports,
            "served_dimensions": [_AXIS[axis] for axis in memory.serves],
        }

    def _pair(self, memory: Memory, operand: Any, number: int) -> list[dict[str, Any]]:
        """Read and write port of one operand; sums travel both ways."""
        width = memory.width_bits(operand, self._description.clock_mhz)
        least = min(width, self._description.precision_bits.activation)
        name, both = _OPERAND[operand], operand == "output"
        common = {"bandwidth_min": least, "bandwidth_max": width}
        reads = [f"{name}, tl", *([f"{name}, th"] if both else [])]
        writes = [f"{name}, fh", *([f"{name}, fl"] if both else [])]
        return [
            {"name": f"r_port_{number}", "type": "read", **common, "allocation": reads},
            {"name": f"w_port_{number}", "type": "write", **common, "allocation": writes},
        ]

    def _layer(self, work: ArrayWork, unrolling: Unrolling) -> Any:
        from zigzag.parser.workload_factory import LayerNodeFactory

        bits = self._description.precision_bits
        loops = ("K", "G", "OX", "OY", "C", "FX", "FY")
        node = {
            "id": 0,
            "name": "layer",
            "operator_type": "Conv",
            "equation": _EQUATION,
            "loop_dims": ["B", *loops],
            "loop_sizes": [1, *(work.bound(loop) for loop in loops)],
            "dimension_relations": [
                f"ix={work.stride_x}*ox+{work.dilation_x}*fx",
                f"iy={work.stride_y}*oy+{work.dilation_y}*fy",
            ],
            "operand_precision": {
                "I": bits.activation,
                "W": bits.weight,
                "O": bits.partial_sum,
                "O_final": bits.activation,
            },
            "operand_source": {"W": 0, "I": -1},
            "pr_loop_dims": ["IX", "IY"],
            "pr_loop_sizes": [work.OX * work.stride_x, work.OY * work.stride_y],
            "padding": [[work.pad_x, work.pad_x], [work.pad_y, work.pad_y]],
        }
        axes = (("columns", unrolling.columns), ("rows", unrolling.rows))
        mapping = {
            "name": "default",
            "spatial_mapping": {
                _AXIS[axis]: [f"{loop}, {factor}" for loop, factor in factors.items()] or ["K, 1"]
                for axis, factors in axes
            },
            "memory_operand_links": {
                _LAYER_OPERAND[operand]: _OPERAND[operand] for operand in _OPERAND
            },
            "spatial_mapping_hint": None,
            "temporal_ordering": [
                [loop, "*"]
                for loop in self._description.mapping.innermost
                if work.bound(loop) > unrolling.total(loop)
            ],
        }
        return LayerNodeFactory(node, [mapping]).create()
