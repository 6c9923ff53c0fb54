"""The three forms a network is exported in, each written to a file and called back from it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slicfast.engine.checkpoint import load_model
from slicfast.engine.encoder import VideoEncoder
from slicfast.errors import MachineError

Metadata = dict[str, str]
Runner = Callable[[torch.Tensor], torch.Tensor]

ONNX_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "clips", "features"
# Large enough that no size shrinks to 1 within the network, which the exporter would take for fixed.
TRACED_SHAPE = (2, 3, 16, 96, 96)


class Chosen(nn.Module):
    """The encoder as a network with one output: clips (N, 3, T, H, W) to pooled features or projection."""

    def __init__(self, encoder: VideoEncoder, features: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.features = features

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = (
            self.encoder.forward_features(clips) if self.features == "pooled" else self.encoder(clips)
        )
        return found


def write_safetensors(encoder: VideoEncoder, features: str, path: Path, metadata: Metadata) -> None:
    """Weights by name; pooled: the backbone's alone."""
    from safetensors.torch import save_file

    state = {
        name: tensor.contiguous()
        for name, tensor in encoder.state_dict().items()
        if features == "projection" or name.startswith("backbone.")
    }
    save_file(state, path, metadata)


def run_safetensors(path: Path, features: str) -> Runner:
    network = Chosen(load_model(path), features)
    return lambda clips: network(clips).detach()


def require_onnx() -> None:
    """Raise MachineError naming the first library that is missing."""
    for name in ONNX_LIBRARIES:
        try:
            import_module(name)
        except ImportError:
            raise MachineError(f"ONNX needs {name}; run pip install 'slicfast[export]'") from None


def write_onnx(network: Chosen, clip_shape: tuple[int, ...], path: Path, metadata: Metadata) -> bool:
    """ONNX by torch.export; returns whether frames, rows and columns are free (batch always is).

    Networks with a fixed idea of their clip are exported for ``clip_shape`` (3, T, H, W) alone.
    """
    sizes = {0: "N", 2: "T", 3: "H", 4: "W"}
    with _quiet():
        try:
            program = _to_onnx(network, TRACED_SHAPE, sizes)
            free = True
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError):
            program = _to_onnx(network, (2, *clip_shape), {0: "N"})
            free = False
        program.model.metadata_props.update(metadata)
        program.save(str(path))
    return free


def _to_onnx(network: Chosen, shape: tuple[int, ...], sizes: dict[int, str]) -> Any:
    dimensions = {axis: torch.export.Dim(name, min=1, max=1 << 16) for axis, name in sizes.items()}
    for axis in (3, 4):
        if axis in dimensions:
            dimensions[axis] = torch.export.Dim(sizes[axis], min=32, max=1 << 16)
    return torch.onnx.export(
        network,
        (torch.zeros(shape),),
        dynamo=True,
        dynamic_shapes=(dimensions,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )


def run_onnx(path: Path) -> Runner:
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run([OUTPUT], {INPUT: clips.numpy()})[0])


def write_torchscript(network: Chosen, clip_shape: tuple[int, ...], path: Path, metadata: Metadata) -> None:
    """A trace, which torch.jit.load and C++ read; the metadata is its extra file slicfast.json."""
    with _quiet():
        traced = torch.jit.trace(network, (torch.zeros(2, *clip_shape),), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path), _extra_files={"slicfast.json": json.dumps(metadata)})


def run_torchscript(path: Path) -> Runner:
    with _quiet():
        network = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(clips: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = network(clips)
        return found

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on each other's deprecation and on shapes: the result is checked."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
