"""Networks of local descriptors on processors, run by OpenVINO, which is faster there than torch and starts at once.

The graph is built from the tensors of the network file each time it is opened: there is no second file that could
differ from it. Batch normalisation is folded into the convolution before it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from asmk_engine.networks.checkpoint_files import check_finite, check_tensors, read_checkpoint
from asmk_engine.networks.efficientnet_lite_plan import EPSILON, SCALING, BlockPlan, LitePlan
from asmk_engine.networks.local_options import LocalOptions
from asmk_engine.threads import available_threads

Arrays = dict[str, np.ndarray]
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
BACKBONE = "backbone."
PREPARED = 2000
"""Prepared layers that are kept, about fifty for each size of an image; all those of a large collection take 1 GB."""
TELEMETRY = "openvino_telemetry"
_CURE = "the file was altered: get it again"


def runs_on_processor(options: LocalOptions, precision: str) -> bool:
    """Return whether a network can run here without torch: a known backbone and HOW's attention, and OpenVINO."""
    known = options.backbone in SCALING and options.attention == "norm" and options.reduction in ("network", "none")
    return known and precision in PRECISIONS and importlib.util.find_spec("openvino") is not None


class ProcessorNetwork:
    """A network that runs on the processors of this machine.

    options        the options of the network
    plan           the plan of its backbone: stride, channels, and where locations lie
    weight, bias   the reduction [D, C] and [D] float32; None without one
    """

    @classmethod
    def open(cls, path: Path | str, precision: str = "fp32") -> ProcessorNetwork:
        """Open a network file; raises as `read_checkpoint`, and MismatchError if its tensors do not fit its options."""
        arrays, metadata = read_checkpoint(path)
        return cls(LocalOptions.from_json(metadata.get("network", ""), path), arrays, path, precision)

    def __init__(self, options: LocalOptions, arrays: Arrays, where: object, precision: str = "fp32") -> None:
        self.options = options
        self.plan = LitePlan.of(self.options.backbone, self.options.skip)
        check_tensors(
            _shapes(self.plan, self.options), {name: array.shape for name, array in arrays.items()}, where, _CURE
        )
        check_finite(arrays, where)
        backbone = {name.removeprefix(BACKBONE): array for name, array in arrays.items() if name.startswith(BACKBONE)}
        self._compiled = _compile(_LiteGraph(backbone, self.plan).model(), PRECISIONS[precision])
        self._requests = threading.local()
        self.weight: np.ndarray | None = None
        if self.options.reduction == "network":
            weight = arrays["reduction.weight"]
            self.weight, self.bias = weight.reshape(len(weight), -1), arrays["reduction.bias"]

    @property
    def dim(self) -> int:
        """Number of dimensions of a descriptor."""
        return self.plan.channels if self.weight is None else len(self.weight)

    def map(self, pixels: np.ndarray) -> np.ndarray:
        """Return the map [h, w, C] float32 of normalised pixels [H, W, 3] float32; valid until the next call."""
        if not hasattr(self._requests, "own"):  # a request belongs to one thread
            self._requests.own = self._compiled.create_infer_request()
        request = self._requests.own
        request.infer([np.ascontiguousarray(pixels)[None]], share_inputs=True)
        found: np.ndarray = request.get_output_tensor().data[0]
        return found

    def reduce(self, locations: np.ndarray) -> np.ndarray:
        """Return descriptors [n, D] float32 of locations [n, C] of the smoothed map: P c + b."""
        return locations if self.weight is None else locations @ self.weight.T + self.bias


def _shapes(plan: LitePlan, options: LocalOptions) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that a network has, by name."""
    shapes = {f"{BACKBONE}{name}": shape for name, shape in plan.shapes().items()}
    if options.reduction == "network":
        shapes |= {"reduction.weight": (options.dim, plan.channels, 1, 1), "reduction.bias": (options.dim,)}
    return shapes


def _compile(model: Any, precision: str) -> Any:
    """Compile for few threads and low latency; a precision that the processor lacks becomes float32 in OpenVINO.

    Threads are not pinned: each worker process would pin its thread to the first processor.
    """
    options = {
        "INFERENCE_NUM_THREADS": _threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": str(PREPARED),
        "INFERENCE_PRECISION_HINT": precision,
    }
    return _core().compile_model(model, "CPU", options)


@functools.cache
def _openvino() -> Any:
    """Import OpenVINO without the part that reports usage to its makers; it works without."""
    blocked = TELEMETRY not in sys.modules
    if blocked:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
        import openvino.opset13
    finally:
        if blocked:
            del sys.modules[TELEMETRY]
    return openvino


@functools.cache
def _core() -> Any:
    return _openvino().Core()


def _threads() -> int:
    """Return the threads of this process: OMP_NUM_THREADS, which is 1 in a worker, else all that are available."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else available_threads()


class _LiteGraph:
    """Builds the graph of an EfficientNet-Lite from its tensors: [1, H, W, 3] to [1, h, w, C]."""

    def __init__(self, arrays: Arrays, plan: LitePlan) -> None:
        self._arrays, self._plan, self._operations = arrays, plan, _openvino().opset13

    def model(self) -> Any:
        """Return the graph, for images of any size."""
        openvino = _openvino()
        any_size = openvino.PartialShape([1, -1, -1, 3])
        pixels = self._operations.parameter(any_size, np.float32, "pixels")
        found = self._clamped(self._convolution(self._turned(pixels, [0, 3, 1, 2]), "_conv_stem", "_bn0", 2))
        for place, block in enumerate(self._plan.blocks):
            found = self._block(found, block, f"_blocks.{place}.")
        if self._plan.expanded:
            found = self._expanded(found, f"_blocks.{len(self._plan.blocks)}.")
        if self._plan.has_head:
            found = self._clamped(self._convolution(found, "_conv_head", "_bn1"))
        return openvino.Model([self._turned(found, [0, 2, 3, 1])], [pixels], "backbone")

    def _block(self, x: Any, plan: BlockPlan, prefix: str) -> Any:
        found = self._expanded(x, prefix) if plan.expansion > 1 else x
        found = self._clamped(
            self._convolution(found, f"{prefix}_depthwise_conv", f"{prefix}_bn1", plan.stride, groups=plan.inner)
        )
        found = self._convolution(found, f"{prefix}_project_conv", f"{prefix}_bn2")
        return self._operations.add(found, x) if plan.is_residual else found

    def _expanded(self, x: Any, prefix: str) -> Any:
        return self._clamped(self._convolution(x, f"{prefix}_expand_conv", f"{prefix}_bn0"))

    def _convolution(self, x: Any, name: str, norm: str, stride: int = 1, groups: int = 1) -> Any:
        weight, bias = folded_arrays(self._arrays, name, norm)
        function: Callable[..., Any] = self._operations.convolution
        if groups > 1:
            function, weight = self._operations.group_convolution, weight[:, None]
        found = function(x, weight, [stride] * 2, [0, 0], [0, 0], [1, 1], auto_pad="same_upper")
        return self._operations.add(found, bias[None, :, None, None])

    def _clamped(self, x: Any) -> Any:
        return self._operations.clamp(x, 0.0, 6.0)

    def _turned(self, x: Any, order: list[int]) -> Any:
        return self._operations.transpose(x, np.array(order))


def folded_arrays(arrays: Arrays, convolution: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """Return weight [O, I, k, k] and bias [O] float32 of a convolution with the batch normalisation after it."""
    names = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (arrays[f"{norm}.{name}"].astype(np.float64) for name in names)
    factor = scale / np.sqrt(variance + EPSILON)
    weight = arrays[f"{convolution}.weight"] * factor[:, None, None, None]
    return weight.astype(np.float32), (shift - mean * factor).astype(np.float32)
