"""Other libraries' decoders of the original files, decoding alone: torchcodec and PyNvVideoCodec."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slicfast.data.requests import Requests, frame_indices
from slicfast.data.store import ClipStore

Decode = Callable[[Path, "np.ndarray[Any, Any]"], torch.Tensor]


def found_decoders(device: torch.device) -> tuple[dict[str, Decode], list[str]]:
    """The decoders of this device that are installed, and why the others are not, a line each."""
    makers = {"torchcodec": _torchcodec}
    if device.type == "cuda":
        makers["PyNvVideoCodec"] = _pynvvideocodec
    found: dict[str, Decode] = {}
    missing: list[str] = []
    for name, make in makers.items():
        try:
            found[name] = make(device)
        except (ImportError, OSError, RuntimeError) as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            missing.append(f"{name} is left out: {reason.strip()[:120]}")
    return found, missing


def _torchcodec(device: torch.device) -> Decode:
    """A decoder a clip, as its documentation has it; "approximate" spares a scan of the file."""
    module: Any = importlib.import_module("torchcodec.decoders")

    def decode(path: Path, indices_T: np.ndarray[Any, Any]) -> torch.Tensor:
        decoder = module.VideoDecoder(str(path), device=str(device), seek_mode="approximate")
        frames: torch.Tensor = decoder.get_frames_at(indices_T.tolist()).data
        return frames

    return decode


def _pynvvideocodec(device: torch.device) -> Decode:
    """Its SimpleDecoder, pictures left in the GPU's memory."""
    module: Any = importlib.import_module("PyNvVideoCodec")

    def decode(path: Path, indices_T: np.ndarray[Any, Any]) -> torch.Tensor:
        decoder = module.SimpleDecoder(
            str(path),
            gpu_id=device.index or 0,
            use_device_memory=True,
            output_color_type=module.OutputColorType.RGB,
        )
        frames = decoder.get_batch_frames_by_index(indices_T.tolist())
        return torch.stack([torch.from_dlpack(frame) for frame in frames])

    return decode


def decoding_run(
    decode: Decode, store: ClipStore, batches: Sequence[Requests], clip_length: int
) -> Callable[[], object]:
    """A function that decodes the clips of some batches from a scanned store's files, one after another."""
    clips: list[tuple[Path, Any]] = []
    for batch in batches:
        indices = frame_indices(batch, clip_length, store.num_frames[batch["video"]])
        clips += [(store.film(int(row)), frames) for row, frames in zip(batch["video"], indices, strict=True)]

    def run() -> None:
        for path, frames in clips:
            decode(path, frames)

    return run
