"""An accelerator as a YAML file: what it is made of, and where each number comes from.

The file is checked here, at the edge; a wrong one gets an error that names the key and the line.
docs/simulators.md explains every key; `device_agents/eyeriss/eyeriss.yaml` is an example.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import ConfigError
from hwnas_sdk.core.ids import content_id

Operand = Literal["input", "weight", "output"]
Axis = Literal["columns", "rows"]
LoopName = Literal["K", "C", "G", "OX", "OY", "FX", "FY"]
Fusable = Literal["batch_norm", "relu", "relu6", "hswish", "hsigmoid", "sigmoid", "tanh", "gelu"]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]

OPERANDS: tuple[Operand, ...] = ("input", "weight", "output")
SHIPPED: dict[str, tuple[str, str]] = {
    "eyeriss": ("eyeriss", "eyeriss.yaml"),
    "fpga": ("fpga", "zc706.yaml"),
}
"""Descriptions that travel with the package: name in ``sim://NAME`` -> folder and file."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Precision(_Strict):
    """Bits of one word."""

    activation: Count
    weight: Count
    partial_sum: Count


class Array(_Strict):
    """The processing elements; each does one multiply-accumulate per cycle."""

    columns: Count
    rows: Count
    mac_pj: NotNegative

    @property
    def n_elements(self) -> int:
        """Processing elements."""
        return self.columns * self.rows


class Widths(_Strict):
    """Bits per cycle of each operand's own port."""

    input: Count | None = None
    weight: Count | None = None
    output: Count | None = None


class Memory(_Strict):
    """One level of the memory hierarchy.

    Attributes:
        holds: what it stores.
        size_bytes: capacity of one instance.
        serves: axes of the array along which one instance is shared; none means one per element.
        ports: "shared", one port for reading and writing; "separate", one for each; "operand", one
            pair for each operand.
        bits_per_cycle: width of a port, or of each operand's; or
        gb_per_s: the same as a rate (10^9 bytes per second).
        read_pj, write_pj: energy per word of the activations' width.
    """

    name: str
    holds: list[Operand] = Field(min_length=1)
    size_bytes: Count
    serves: list[Axis] = []
    ports: Literal["shared", "separate", "operand"] = "separate"
    bits_per_cycle: Count | Widths | None = None
    gb_per_s: Positive | None = None
    read_pj: NotNegative = 0.0
    write_pj: NotNegative = 0.0

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if (self.bits_per_cycle is None) == (self.gb_per_s is None):
            raise ValueError("give either bits_per_cycle or gb_per_s")
        if isinstance(self.bits_per_cycle, Widths):
            missing = [o for o in self.holds if getattr(self.bits_per_cycle, o) is None]
            if self.ports != "operand" or missing:
                raise ValueError("widths per operand need ports: operand and one for each in holds")
        return self

    def width_bits(self, operand: Operand, clock_mhz: float) -> int:
        """Bits per cycle of the port that serves `operand`."""
        if isinstance(self.bits_per_cycle, Widths):
            return int(getattr(self.bits_per_cycle, operand))
        if self.bits_per_cycle is not None:
            return self.bits_per_cycle
        assert self.gb_per_s is not None
        return max(1, int(self.gb_per_s * 8e3 / clock_mhz))


class MappingRules(_Strict):
    """Which mappings are legal, and which of them is taken.

    Attributes:
        columns, rows: loops that may be unrolled over the axis, the preferred one first.
        unroll_fully: of these loops as much as fits is always unrolled, before the others.
        factors: "divisors", a loop is unrolled by divisors of its size only; "any", the last pass
            may leave elements idle.
        innermost: temporal loops in this order inside all others, as far as the layer has them.
        candidates: spatial mappings tried with the engine, those with the fewest passes first.
        loop_factors: pieces the temporal loops are cut into at most when their order is searched.
        objective: latency, energy or edp (their product); ties go to the other of the two.
    """

    columns: list[LoopName] = Field(min_length=1)
    rows: list[LoopName] = Field(min_length=1)
    unroll_fully: list[LoopName] = []
    factors: Literal["divisors", "any"] = "any"
    innermost: list[LoopName] = []
    candidates: Count = 4
    loop_factors: Annotated[int, Field(ge=1, le=8)] = 4
    objective: Literal["latency", "energy", "edp"] = "edp"

    @model_validator(mode="after")
    def _known(self) -> Self:
        stray = [loop for loop in self.unroll_fully if loop not in (*self.columns, *self.rows)]
        if stray:
            raise ValueError(f"unroll_fully names {stray[0]}, which neither columns nor rows have")
        return self


class Elementwise(_Strict):
    """Layers without a weight array: pooling, additions, activations that are not fused.

    Attributes:
        ops_per_cycle: additions, comparisons or multiplications per cycle.
        fused: operators that cost nothing, as they happen while a convolution's result is written.
    """

    ops_per_cycle: Positive
    fused: list[Fusable] = []


class Energy(_Strict):
    """How energy is accounted for.

    Attributes:
        scope: "chip" leaves out the outermost memory, "system" does not.
        power_w: constant power; energy is then power x latency and the memories' energies are
            only used to choose mappings.
    """

    scope: Literal["chip", "system"] = "system"
    power_w: Positive | None = None


class AcceleratorDescription(_Strict):
    """A whole accelerator.

    Attributes:
        feature_maps: where maps are between layers: "outermost", in that memory; "on_chip", in
            the buffers the array shares when a layer's input and output fit there together.
    """

    format: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    title: str
    clock_mhz: Positive
    precision_bits: Precision
    array: Array
    memories: list[Memory] = Field(min_length=2)
    mapping: MappingRules
    elementwise: Elementwise
    feature_maps: Literal["outermost", "on_chip"] = "outermost"
    energy: Energy = Energy()

    @field_validator("memories")
    @classmethod
    def _complete(cls, memories: list[Memory]) -> list[Memory]:
        names = [memory.name for memory in memories]
        if len(set(names)) != len(names):
            raise ValueError("two memories have one name")
        outermost = memories[-1]
        if set(outermost.holds) != set(OPERANDS):
            raise ValueError("the last memory is the outermost: it has to hold all three operands")
        if set(outermost.serves) != {"columns", "rows"}:
            raise ValueError("the last memory is the outermost: it has to serve columns and rows")
        return memories

    @cached_property
    def content_hash(self) -> str:
        """Of everything that can change a number: equal hash, equal simulator."""
        return content_id(self.model_dump(mode="json", exclude={"title"}), length=32)

    @property
    def outermost(self) -> Memory:
        """The memory everything comes from and goes to."""
        return self.memories[-1]

    def shared_buffer(self, operand: Operand) -> Memory | None:
        """The last memory before the outermost that the whole array shares and `operand` passes."""
        shared = [m for m in self.memories[:-1] if set(m.serves) == {"columns", "rows"}]
        return next((m for m in reversed(shared) if operand in m.holds), None)


def shipped_path(name: str) -> Path:
    """File of the description ``sim://NAME``.

    Raises: ConfigError for an unknown name.
    """
    if name not in SHIPPED:
        raise ConfigError(
            f"there is no shipped accelerator {name!r}",
            code="unknown_accelerator",
            hint=f"one of {', '.join(SHIPPED)}, or your own file: sim:///path/to/accelerator.yaml",
        )
    folder, file = SHIPPED[name]
    return _resources.bundled("device_agents") / folder / file


def load_description(path: Path) -> AcceleratorDescription:
    """Read and check a description.

    Raises: ConfigError "bad_accelerator" that names the file, the line and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"the accelerator description {path} cannot be read: {reason}", code="bad_accelerator"
        ) from exc
    try:
        return AcceleratorDescription.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        problem = getattr(exc, "problem", None) or "not YAML"
        raise _bad(path, mark.line + 1 if mark else 1, str(problem)) from exc
    except ValidationError as exc:
        # An unknown key explains a missing one (a typing mistake), so it comes first.
        errors = exc.errors(include_url=False)
        first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        message = f"{key}: {first['msg'].removeprefix('Value error, ')}"
        raise _bad(path, _line_of(text, first["loc"]), message) from exc


def _bad(path: Path, line: int, problem: str) -> ConfigError:
    return ConfigError(
        f"{path}, line {line}: {problem}",
        code="bad_accelerator",
        hint="docs/simulators.md explains every key",
    )


def _line_of(text: str, location: tuple[int | str, ...]) -> int:
    """Line (from 1) of the deepest part of `location` that exists in the YAML `text`."""
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    line = 1
    for part in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
            continue
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
