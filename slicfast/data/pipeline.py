"""The DALI graph of a GPU, from JPEG bytes to cropped, resized and mirrored pictures; nothing random inside.

    decode -> cut out -> resize and flip (one operator)

The batch is flat: N clips of T frames are N * T pictures, each with its clip's parameters. Colour, blur and
normalisation follow in `photometric.py`. The same graph runs on a CPU, for tests; there `backend.py` takes
another way, which is cheaper.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.augment import ClipParams
from slicfast.data.decoding.jpeg import Pictures, as_torch, build_pipeline, decoded, outputs
from slicfast.data.resampling import axis
from slicfast.device import require_dali


class ClipPipeline:
    """Pictures and parameters in, (N, T, S, S, 3) 8-bit clips out, in the order they were fed.

    Any number of batches may be under way; each is decoded by `num_threads` threads and gives the same bits
    whatever their number. A failed batch costs only itself.

    Args:
        clip_length: T, frames.
        crop_size: S, pixels.
        device: "cpu" or a CUDA device.
        num_threads: DALI's.
        max_clips: largest N.

    Raises:
        MachineError: DALI is missing.
    """

    def __init__(
        self, *, clip_length: int, crop_size: int, device: torch.device, num_threads: int, max_clips: int
    ) -> None:
        require_dali()
        self.clip_length = clip_length
        self.crop_size = crop_size
        self._pipe = _build(crop_size, device, num_threads, max_clips * clip_length)

    def feed(
        self, pictures: Pictures, params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
    ) -> None:
        """Start on a batch of N clips: N * T pictures, clip after clip. The bytes may change afterwards.

        Args:
            width_N, height_N: stored pixels of each clip's pictures.
        """
        self._pipe.feed_input("jpeg", pictures)
        for name, values_N in crop_arguments(params, width_N, height_N, self.crop_size).items():
            self._pipe.feed_input(name, np.repeat(values_N, self.clip_length, axis=0))
        self._pipe.schedule_run()

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        """The next batch, waiting for it: (N, T, S, S, 3) uint8 in memory that nothing else will write.

        Args:
            stream: the CUDA stream on which it will be used; the host does not wait for the GPU then.

        Raises:
            DecodeError: the batch is lost; the next one is not.
        """
        (output,) = outputs(self._pipe, stream)
        flat = as_torch(output, stream)
        return flat.view(-1, self.clip_length, *flat.shape[1:])


def crop_arguments(
    params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike, crop_size: int
) -> dict[str, npt.NDArray[Any]]:
    """The inputs of `cropped`, a row a clip: what to cut out, and the region within that, in shares."""
    num = len(params)
    size_N2 = np.stack([np.broadcast_to(side, num) for side in (height_N, width_N)], axis=1)
    start_N2, end_N2 = params.top_left.copy(), params.bottom_right.copy()
    cut_N2, shape_N2 = np.zeros((num, 2), dtype=np.int32), size_N2.astype(np.int32)
    for n, side in np.ndindex(num, 2):
        length = int(size_N2[n, side])
        found = axis(float(start_N2[n, side]), float(end_N2[n, side]), length, crop_size)
        if found is not None and found.size == crop_size:
            cut_N2[n, side], shape_N2[n, side] = found.start, found.stop - found.start
            start_N2[n, side], end_N2[n, side] = 0.0, 1.0
    # DALI mirrors a region whose ends are swapped.
    columns_N2 = np.stack([start_N2[:, 1], end_N2[:, 1]], axis=1)
    columns_N2[params.flip] = columns_N2[params.flip, ::-1]
    start_N2[:, 1], end_N2[:, 1] = columns_N2.T
    return {"cut": cut_N2, "shape": shape_N2, "roi_start": start_N2, "roi_end": end_N2}


def _build(crop_size: int, device: torch.device, num_threads: int, max_pictures: int) -> Any:
    """The graph. CPU and GPU differ in where the decoder puts its pictures; all else follows them."""
    fn: Any = importlib.import_module("nvidia.dali.fn")  # DALI's stubs lag behind its arguments, hence Any

    def graph() -> Any:
        return cropped(fn, decoded(fn, device), crop_size, axes=(0, 1))

    return build_pipeline(graph, device, num_threads, max_pictures)


def cropped(fn: Any, pictures: Any, crop_size: int, axes: tuple[int, int]) -> Any:
    """The graph's node of regions at the size of the crop; `axes` are rows and columns of what is decoded."""
    types: Any = importlib.import_module("nvidia.dali.types")

    def argument(name: str, dtype: Any) -> Any:
        return fn.external_source(name=name, device="cpu", dtype=dtype, ndim=1)

    cut, shape = argument("cut", types.INT32), argument("shape", types.INT32)
    return fn.resize(
        fn.slice(pictures, start=cut, shape=shape, axes=list(axes)),
        size=[crop_size] * 2,
        roi_start=argument("roi_start", types.FLOAT),
        roi_end=argument("roi_end", types.FLOAT),
        roi_relative=True,
    )
