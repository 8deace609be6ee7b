"""TVM's compiler and tuner; what its versions call things is known here (and in `remote`).

Runs in a child process (`child`): TVM aborts the process on some inputs, and its import takes
seconds.

Three things TVM does slowly are done differently, all measured on this project's machines:

* Importing ``tvm.s_tir.tensor_intrin``, which every tuning context does, parses GPU intrinsics for
  28 s; only those of the target's processor are imported (0.2 s).
* ``LocalBuilder`` starts new interpreters for every batch, each paying that import: 40 s for 16
  candidates. They are built in this process instead (0.1 s each), which is a child already.
* Folding the constants of batch norms builds each of them with LLVM: 12 s per NAS-Bench-201
  network. ONNX Runtime's basic optimisation folds them into the convolutions first (0.05 s).
"""

from __future__ import annotations

import importlib
import json
import logging
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwnas_sdk.core.errors import ExportError
from hwnas_sdk.export.host_runtime import load_onnxruntime

_EQUALITY: Final = "anchor-block"
"""Layers are equal when their heaviest block is: a schedule serves every epilogue fused to it."""

_FEW_TRIALS: Final = 64
"""Below this a learned cost model sees too little to guide anything: candidates are random."""

_LOG = logging.getLogger(__name__)


def load(arch: str) -> None:
    """Import what compiling and tuning for `arch` need, the fast way."""
    import tvm
    import tvm.s_tir.meta_schedule

    name = "tvm.s_tir.tensor_intrin"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(Path(tvm.__file__).parent / "s_tir" / "tensor_intrin")]
        sys.modules[name] = package
        mine = {"x86_64": "x86", "aarch64": "arm_cpu", "armv7": "arm_cpu"}.get(arch)
        if mine is not None:
            importlib.import_module(f"{name}.{mine}")
    for noisy in ("tvm", "tvm.s_tir.meta_schedule"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@dataclass(frozen=True)
class Layer:
    """One function of a network that is worth tuning.

    Attributes:
        key: sixteen digits of its structural hash.
        name: what TVM calls it, e.g. ``fused_conv2d_add_relu``.
        shape: its first two tensors, e.g. ``1x16x32x32 * 16x16x3x3``.
        weight: how often the network calls it.
        module: the TVM module.
    """

    key: str
    name: str
    shape: str
    weight: int
    module: Any


@dataclass(frozen=True)
class Network:
    """A network lowered to one function per fused layer.

    Attributes:
        module: the TVM module.
        layers: those worth tuning, each once.
        inputs: (name, shape, numpy type), in order.
    """

    module: Any
    layers: tuple[Layer, ...]
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]


def lower(onnx_path: Path, target: Any) -> Network:
    """Read an ONNX file and fuse its operators into layers.

    Raises: ExportError "tvm_unsupported" with TVM's reason.
    """
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    model = _folded(onnx_path)
    inputs = _inputs_of(model)
    try:
        module = from_onnx(model, keep_params_in_input=False)
        with target:
            passes = [
                relax.transform.DecomposeOpsForInference(),
                relax.transform.CanonicalizeBindings(),
                relax.get_pipeline("zero"),
            ]
            module = tvm.transform.Sequential(passes)(module)
    except Exception as exc:
        raise ExportError(
            f"TVM cannot compile this network: {_reason(exc)}",
            code="tvm_unsupported",
            hint="measure it with --runtime ort",
        ) from exc
    return Network(module, tuple(_layers(module, target)), inputs)


def make_target(spec: Mapping[str, Any]) -> Any:
    """Return TVM's target of a dictionary.

    Raises: ExportError "unknown_target".
    """
    import tvm

    try:
        return tvm.target.Target(dict(spec))
    except Exception as exc:
        raise ExportError(
            f"TVM does not know this target: {_reason(exc)}", code="unknown_target"
        ) from exc


def build(
    network: Network, target: Any, database: Any, out: Path, link: Sequence[str]
) -> dict[str, Any]:
    """Compile to a shared library at `out`, with the schedules `database` has.

    Returns: n_layers, n_tuned, build_s, link_s.
    Raises: ExportError "tvm_build" with the compiler's last words.
    """
    from tvm import relax

    tuned = sum(database.has_workload(layer.module) for layer in network.layers)
    marks = [time.perf_counter()]
    try:
        with database, target:
            module = relax.transform.MetaScheduleApplyDatabase()(network.module)
        library = relax.build(module, target=target)
        marks.append(time.perf_counter())
        library.export_library(str(out), fcompile=_fcompile(link))
        marks.append(time.perf_counter())
    except Exception as exc:
        raise ExportError(
            f"TVM failed to build the library: {_reason(exc)}", code="tvm_build"
        ) from exc
    return {
        "n_layers": len(network.layers),
        "n_tuned": tuned,
        "build_s": marks[1] - marks[0],
        "link_s": marks[2] - marks[1],
    }


# --- tuning -----------------------------------------------------------------------------------


def open_database(folders: Sequence[Path]) -> Any:
    """Database in memory with the layers kept in `folders`; a damaged one is passed over."""
    from tvm.s_tir import meta_schedule as ms

    database = ms.database.MemoryDatabase(module_equality=_EQUALITY)
    for folder in folders:
        try:
            kept = ms.database.JSONDatabase(
                work_dir=str(folder), allow_missing=False, module_equality=_EQUALITY
            )
            # A workload without a record is a layer that no candidate made faster.
            for layer in _workloads(folder):
                workload = database.commit_workload(layer)
                for record in kept.get_top_k(kept.commit_workload(layer), 1):
                    _copy_record(database, workload, record)
        except Exception as exc:  # noqa: BLE001 - any version or damage: the layer is not tuned
            _LOG.warning("tuned layer %s cannot be read: %s", folder, _reason(exc))
    return database


@dataclass(frozen=True)
class Trial:
    """How candidates are built and timed.

    Attributes:
        builder, runner: MetaSchedule's.
    """

    builder: Any
    runner: Any


def local_trials(link: Sequence[str], *, timeout_s: float) -> Trial:
    """Candidates run on this machine, in a process of their own."""
    from tvm.s_tir import meta_schedule as ms

    runner = ms.runner.LocalRunner(timeout_sec=timeout_s, evaluator_config=_evaluator())
    return Trial(_builder(link), runner)


def rpc_trials(link: Sequence[str], *, host: str, port: int, key: str, timeout_s: float) -> Trial:
    """Candidates run on the board that answers for `key` at a TVM tracker (experimental)."""
    from tvm.s_tir import meta_schedule as ms

    config = ms.runner.RPCConfig(
        tracker_host=host,
        tracker_port=port,
        tracker_key=key,
        session_priority=1,
        session_timeout_sec=int(timeout_s),
    )
    runner = ms.runner.RPCRunner(rpc_config=config, evaluator_config=_evaluator(), max_workers=1)
    return Trial(_builder(link), runner)


def tune_layer(
    layer: Layer, target: Any, trial: Trial, *, n_trials: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Try `n_trials` schedules of a layer and keep the best in the new database `folder`.

    Returns: before_us (TVM's default schedule), after_us (of what will be used, which is the
        default where no candidate was faster; None: no candidate ran), n_valid.
    """
    from tvm.s_tir import meta_schedule as ms

    before_us = _time_default(layer, target, trial)
    few = n_trials < _FEW_TRIALS
    callbacks = [ms.measure_callback.AddToDatabase(), ms.measure_callback.RemoveBuildArtifact()]
    if not few:
        callbacks.append(ms.measure_callback.UpdateCostModel())
    found = ms.database.MemoryDatabase(module_equality=_EQUALITY)
    context = ms.TuneContext(
        mod=layer.module,
        target=target,
        space_generator="post-order-apply",
        search_strategy="replay-trace" if few else "evolutionary",
        task_name=layer.name,
        rand_state=seed + 1,
        num_threads=1,
    )
    with tempfile.TemporaryDirectory() as scratch:
        ms.tune_tasks(
            tasks=[context],
            task_weights=[1.0],
            work_dir=scratch,
            max_trials_global=n_trials,
            num_trials_per_iter=min(n_trials, 16),
            builder=trial.builder,
            runner=trial.runner,
            database=found,
            cost_model="random" if few else "xgb",
            measure_callbacks=callbacks,
            module_equality=_EQUALITY,
        )
    best = found.get_top_k(found.commit_workload(layer.module), 1)
    after_us = min((float(s) for s in best[0].run_secs), default=None) if best else None
    after_us = None if after_us is None else after_us * 1e6
    folder.mkdir(parents=True)
    kept = ms.database.JSONDatabase(work_dir=str(folder), module_equality=_EQUALITY)
    workload = kept.commit_workload(layer.module)
    if after_us is not None and (before_us is None or after_us < before_us):
        _copy_record(kept, workload, best[0])
    elif after_us is not None:
        after_us = before_us  # no candidate was faster: TVM's own schedule stays
    return {"before_us": before_us, "after_us": after_us, "n_valid": len(found)}


# --- the parts --------------------------------------------------------------------------------


def _folded(path: Path) -> Any:
    """The model with batch norms and constants folded; the file itself where that fails."""
    import onnx

    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as scratch:
        optimised = Path(scratch) / "model.onnx"
        options.optimized_model_filepath = str(optimised)
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            return onnx.load(optimised)
        except Exception as exc:  # noqa: BLE001 - its exceptions share no narrower base
            _LOG.info("not folded: %s", _reason(exc))
    return onnx.load(path)


def _inputs_of(model: Any) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    import onnx

    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if 0 in shape:
            raise ExportError(
                f"input {value.name!r} has no fixed shape", code="dynamic_shape",
                hint="fix it with --fix-dim",
            )  # fmt: skip
        inputs.append((value.name, shape, str(kind)))
    return tuple(inputs)


def _layers(module: Any, target: Any) -> Iterator[Layer]:
    from tvm.s_tir.meta_schedule.relax_integration import extract_tasks
    from tvm_ffi import structural_hash

    for task in extract_tasks(module, target, module_equality=_EQUALITY):
        body = task.dispatched[0]
        if _reduces(body):
            key = f"{structural_hash(body) & (2**64 - 1):016x}"
            yield Layer(key, task.task_name, _shape(body), int(task.weight), body)


def _reduces(module: Any) -> bool:
    """Whether it sums or maximises over something: what is element by element is fast untuned."""
    from tvm import s_tir

    schedule = s_tir.Schedule(module)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    reduction = 2  # IterVar.CommReduce
    return any(
        int(axis.iter_type) == reduction
        for block in blocks
        for axis in schedule.get(block).iter_vars
    )


def _shape(module: Any) -> str:
    parameters = module["main"].params
    shapes = ["x".join(str(int(size)) for size in p.ty.shape) for p in parameters]
    return " * ".join(shapes[:2]) if len(shapes) > 2 else " -> ".join(shapes)


def _fcompile(link: Sequence[str]) -> Any:
    from tvm.support import cc

    command, *options = link
    return cc.cross_compiler(_shared(command, options), output_format="so")


def _shared(command: str, options: Sequence[str]) -> Callable[..., None]:
    from tvm.support import cc

    def create(out: str, objects: Any, options: Sequence[str] = options, **_: Any) -> None:
        # The name of a temporary file must not end up in the library: equal input, equal bytes.
        cc.create_shared(out, objects, [*options, "-s", "-Wl,--build-id=none"], cc=command)

    return create


def _builder(link: Sequence[str]) -> Any:
    """Builder of candidates in this process."""
    from tvm.driver import build as build_module
    from tvm.ir.utils import derived_object
    from tvm.s_tir import meta_schedule as ms
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

    fcompile = _fcompile(link)

    @derived_object
    class InProcess(ms.builder.PyBuilder):  # type: ignore[misc]  # TVM has no types
        def build(self, build_inputs: Sequence[Any]) -> list[Any]:
            return [self._one(entry) for entry in build_inputs]

        def _one(self, entry: Any) -> Any:
            folder = Path(tempfile.mkdtemp(prefix="hwnas-tune-"))
            try:
                module = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(entry.mod)
                library = build_module(module, target=entry.target)
                path = folder / "candidate.so"
                library.export_library(str(path), fcompile=fcompile)
            except Exception as exc:  # noqa: BLE001 - a candidate that does not build is one less
                shutil.rmtree(folder, ignore_errors=True)
                return ms.builder.BuilderResult(None, _reason(exc))
            return ms.builder.BuilderResult(str(path), None)

    return InProcess()


def _evaluator() -> Any:
    from tvm.s_tir import meta_schedule as ms

    return ms.runner.EvaluatorConfig(
        number=3, repeat=1, min_repeat_ms=20, enable_cpu_cache_flush=False
    )


def _time_default(layer: Layer, target: Any, trial: Trial) -> float | None:
    """Microseconds of the layer as TVM compiles it untuned; None when it did not run."""
    from tvm.s_tir import meta_schedule as ms

    (built,) = trial.builder.build([ms.builder.BuilderInput(layer.module, target)])
    if built.artifact_path is None:
        return None
    arguments = ms.arg_info.ArgInfo.from_entry_func(layer.module, remove_preproc=True)
    (future,) = trial.runner.run([ms.runner.RunnerInput(built.artifact_path, "cpu", arguments)])
    seconds = future.result().run_secs
    shutil.rmtree(Path(str(built.artifact_path)).parent, ignore_errors=True)
    return None if not seconds else min(float(value) for value in seconds) * 1e6


def _copy_record(database: Any, workload: Any, record: Any) -> None:
    from tvm.s_tir import meta_schedule as ms

    database.commit_tuning_record(
        ms.database.TuningRecord(
            record.trace, workload, record.run_secs, record.target, record.args_info
        )
    )


def _workloads(folder: Path) -> list[Any]:
    """Modules of a JSON database, one per line."""
    from tvm.s_tir.meta_schedule.database import Workload

    lines = (folder / "database_workload.json").read_text(encoding="utf-8").splitlines()
    return [Workload.from_json(json.loads(line)).mod for line in lines]


def _reason(exc: BaseException) -> str:
    """The line of a TVM error that says what is wrong: the last one, without the traceback."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[-1] if lines else type(exc).__name__)[:300]
