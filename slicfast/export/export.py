"""`slicfast export`: a network written for other programs, checked against the original before it is kept."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from slicfast import __version__
from slicfast.engine.checkpoint import EXPORT_FORMAT, EXPORT_VERSION
from slicfast.engine.video_embedding import FEATURE_KINDS, Encoder, FeatureKind
from slicfast.errors import ConfigError, RunError, one_of
from slicfast.export import formats
from slicfast.records import write_atomically

Kind = Literal["safetensors", "onnx", "torchscript"]
KINDS = ("safetensors", "onnx", "torchscript")
MAX_RELATIVE_ERROR = 1e-4  # of the largest feature; float32 gives about 1e-6
CHECKED_BATCHES = (1, 3)


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        max_error: largest difference from the original on random clips.
        largest: the largest feature of these.
        free_sizes: whether other numbers of frames, rows and columns are taken, beside any batch.
    """

    output: Path
    kind: str
    features: str
    dim: int
    num_bytes: int
    max_error: float
    largest: float
    free_sizes: bool


def export_model(
    path: str | Path, kind: Kind, output: Path, features: FeatureKind | None = None
) -> ExportReport:
    """Export a run's or checkpoint's network, in float32, on the CPU.

    Input of the result: clips (N, 3, T, H, W) float32, normalised with the mean and std of its metadata.

    Args:
        features: ``pooled``, the backbone alone, or ``projection``, the whole encoder. None: the whole
            encoder for safetensors, the backbone for the others.

    Raises:
        ConfigError: an unknown kind.
        DataError: no checkpoint there.
        MachineError: a library is missing, no space.
        RunError: what was written does not compute the same; nothing is left.
    """
    if kind not in KINDS:
        raise ConfigError(one_of("kind", kind, KINDS))
    if features is not None and features not in FEATURE_KINDS:
        raise ConfigError(one_of("features", features, FEATURE_KINDS))
    if kind == "onnx":
        formats.require_onnx()
    chosen: FeatureKind = features or ("projection" if kind == "safetensors" else "pooled")
    encoder = Encoder.from_checkpoint(path, device="cpu")
    network = formats.Chosen(encoder.network, chosen).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    data = encoder.config.data
    clip_shape = (3, data.clip_length, data.crop_size, data.crop_size)
    metadata = describe(encoder, chosen)
    with tempfile.TemporaryDirectory(prefix="slicfast-export-") as folder:
        made = Path(folder) / f"network{'.safetensors' if kind == 'safetensors' else ''}"
        free = True
        run: formats.Runner
        if kind == "safetensors":
            formats.write_safetensors(encoder.network, chosen, made, metadata)
            run = formats.run_safetensors(made, chosen)
        elif kind == "onnx":
            free = formats.write_onnx(network, clip_shape, made, metadata)
            run = formats.run_onnx(made)
        else:
            formats.write_torchscript(network, clip_shape, made, metadata)
            run = formats.run_torchscript(made)
        error, largest = compare(network, run, clip_shape, other_sizes=free)
        if not error <= MAX_RELATIVE_ERROR * largest:
            raise RunError(
                f"the {kind} network differs from the original by {error:.2g} where features reach"
                f" {largest:.2g}; nothing was written. Please report it with the output of 'slicfast version'"
            )
        content = made.read_bytes()
    write_atomically(output, lambda stream: stream.write(content))
    dim = encoder.num_features(chosen)
    return ExportReport(output, kind, chosen, dim, len(content), error, largest, free)


def compare(
    network: Callable[[torch.Tensor], torch.Tensor],
    run: formats.Runner,
    clip_shape: tuple[int, ...],
    *,
    other_sizes: bool,
) -> tuple[float, float]:
    """Largest difference on random clips of several batches (and sizes), and the largest feature."""
    channels, frames, rows, columns = clip_shape
    shapes = [(batch, *clip_shape) for batch in CHECKED_BATCHES]
    if other_sizes:
        shapes.append((2, channels, frames + 4, rows + 16, columns + 32))
    error = largest = 0.0
    for shape in shapes:
        clips = torch.randn(shape)
        with torch.no_grad():
            wanted = network(clips)
        found = run(clips)
        if found.shape != wanted.shape:
            return float("inf"), 1.0
        error = max(error, float((found - wanted).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
    return error, largest


def describe(encoder: Encoder, features: FeatureKind) -> formats.Metadata:
    """What a user of the file must know; values are text, lists and the configuration are JSON."""
    data = encoder.config.data
    return {
        "format": EXPORT_FORMAT,
        "version": str(EXPORT_VERSION),
        "slicfast": __version__,
        "model": encoder.config.model.name,
        "features": features,
        "dim": str(encoder.num_features(features)),
        "input": "clips (N, 3, T, H, W) float32 RGB: (value / 255 - mean) / std",
        "mean": json.dumps(list(data.mean)),
        "std": json.dumps(list(data.std)),
        "clip_length": str(data.clip_length),
        "clip_stride": str(data.clip_stride),
        "crop_size": str(data.crop_size),
        "resize": json.dumps(list(encoder.plan.resize)),
        "fingerprint": encoder.fingerprint(features),
        "config": json.dumps(encoder.config.to_dict()),
    }
