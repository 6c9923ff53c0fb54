"""The DALI graph from JPEG bytes to normalised clips: one builder for CPU and GPU, nothing random inside.

    decode -> crop, resize and flip (one operator) -> colour and normalisation (one 3 x 4 matrix a frame)

The batch is flat: N clips of T frames are N * T pictures, each with its clip's parameters. Pictures stay
float32 between the operators, which is cheaper here than rounding them to 8 bit and more exact.

Blur is drawn for few clips and dearer than all the rest together. It goes before colour (the two commute),
and where the kernel is wide enough its clips are resized to half the size, blurred there with what is missing
of the variance, and enlarged again: a tenth of the arithmetic. For film frames and crops of 32 to 224 this
differs from a 15 x 15, sigma 2 blur at full size by 0.1 of 255 on average and 1.4 at the 99.9th percentile.
Within the kernel's reach of the border it is up to 0.3 and 7, because the pixels mirrored there lie half a
coarse pixel off; whether a border is mirrored or repeated, on which libraries disagree, makes twice as much.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import AugmentConfig
from slicfast.data.augment import LUMA, ClipParams
from slicfast.device import require_dali

Triple = tuple[float, float, float]
Pictures = Sequence[npt.NDArray[np.uint8]]  # JPEG bytes

MIN_HALVED_SIGMA = 2.0  # pixels; narrower kernels need the full size


class DecodeError(Exception):
    """DALI failed on a batch; one bad picture fails all of it, and often is not named."""


@dataclass(frozen=True)
class BlurPlan:
    """How a blur of `sigma` at `crop_size` is computed.

    Attributes:
        sigma: pixels of the crop.
        crop_size: pixels.
        size: pixels at which the convolution is done: the crop's, or half of it.
        window: taps there, odd.
    """

    sigma: float
    crop_size: int
    size: int
    window: int

    @classmethod
    def make(cls, config: AugmentConfig, crop_size: int) -> BlurPlan:
        radius = (config.blur_kernel - 1) // 2
        # A kernel cut off well inside its tails is no longer told by its variance alone.
        if config.blur_sigma >= MIN_HALVED_SIGMA and radius >= 3.0 * config.blur_sigma and crop_size >= 16:
            size = (crop_size + 1) // 2
            return cls(config.blur_sigma, crop_size, size, 2 * int(radius * size / crop_size) + 1)
        return cls(config.blur_sigma, crop_size, crop_size, config.blur_kernel)

    def sigmas(self, region_size: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Sigma at the plan's size for each axis of regions given in stored pixels (any shape).

        Resizing is itself a filter: a triangle of one stored pixel, or of one resized pixel when shrinking.
        Variances add, so what the detour through the smaller size does beyond the direct resize is taken off.
        """
        if self.size == self.crop_size:
            return np.full(region_size.shape, self.sigma, dtype=np.float32)
        stored_pixel = self.crop_size / region_size  # in pixels of the crop, like all widths below
        coarse_pixel = self.crop_size / self.size
        shrink = np.maximum(stored_pixel, coarse_pixel) ** 2 - np.maximum(stored_pixel, 1.0) ** 2
        variance = self.sigma**2 - (shrink + coarse_pixel**2) / 6.0  # a triangle's variance: width^2 / 6
        sigmas: npt.NDArray[np.float32] = (np.sqrt(variance) / coarse_pixel).astype(np.float32)
        return sigmas


def channel_bounds(mean: Triple, std: Triple) -> tuple[torch.Tensor, torch.Tensor]:
    """(3,) normalised values of 0 and of 255."""
    mean_3, std_3 = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    return (-mean_3 / std_3).float(), ((1.0 - mean_3) / std_3).float()


class ClipPipeline:
    """Pictures and parameters in, (N, T, H, W, 3) float32 normalised clips out, in the order they were fed.

    Any number of batches may be under way; each is decoded by `num_threads` threads and gives the same bits
    whatever their number. A failed batch costs only itself.

    Args:
        clip_length: T, frames.
        crop_size: pixels of the square output.
        mean, std: per channel, of values in 0-1.
        augment: for the blur's size; None: no clip will be blurred.
        device: "cpu" or a CUDA device.
        num_threads: DALI's.
        max_clips: largest N.

    Raises:
        MachineError: DALI is missing.
    """

    def __init__(
        self,
        *,
        clip_length: int,
        crop_size: int,
        mean: Triple,
        std: Triple,
        augment: AugmentConfig | None,
        device: torch.device,
        num_threads: int,
        max_clips: int,
    ) -> None:
        require_dali()
        self.clip_length = clip_length
        self.crop_size = crop_size
        self._mean = np.array(mean)
        self._scale = 1.0 / (255.0 * np.array(std))  # from 8-bit values to normalised ones
        self._blur = BlurPlan.make(augment or AugmentConfig(), crop_size)
        self._device = device
        self._num_threads = num_threads
        self._pipe = _build(self._blur, device, num_threads, max_clips * clip_length)
        self._probe: Any = None

    def feed(
        self, pictures: Pictures, params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
    ) -> None:
        """Start on a batch of N clips: N * T pictures, clip after clip. The bytes may change afterwards."""
        pipe = self._pipe
        pipe.feed_input("jpeg", pictures)
        for name, values_N in self._arguments(params, width_N, height_N).items():
            pipe.feed_input(name, np.repeat(values_N, self.clip_length, axis=0))
        pipe.schedule_run()

    def take(self, stream: torch.cuda.Stream | None = None) -> torch.Tensor:
        """The next batch, waiting for it: (N, T, H, W, 3) float32 in memory that nothing else will write.

        Args:
            stream: the CUDA stream on which it will be used; the host does not wait for the GPU then.

        Raises:
            DecodeError: the batch is lost; the next one is not.
        """
        try:
            (output,) = self._pipe.outputs(stream)
        except RuntimeError as error:
            raise DecodeError(_gist(error)) from None
        flat = torch.from_dlpack(output.as_tensor())
        return flat.view(-1, self.clip_length, *flat.shape[1:])

    def undecodable(self, pictures: Pictures) -> list[int]:
        """Which clips of a batch cannot be decoded, each tried alone."""
        if self._probe is None:
            self._probe = _build_probe(self._device, self._num_threads, self.clip_length)
        failed = []
        for clip, first in enumerate(range(0, len(pictures), self.clip_length)):
            self._probe.feed_input("jpeg", pictures[first : first + self.clip_length])
            self._probe.schedule_run()
            try:
                self._probe.outputs()
            except RuntimeError:
                failed.append(clip)
        return failed

    def _arguments(
        self, params: ClipParams, width_N: npt.ArrayLike, height_N: npt.ArrayLike
    ) -> dict[str, npt.NDArray[Any]]:
        """The graph's inputs, a row a clip."""
        num = len(params)
        size_N2 = np.stack(np.broadcast_arrays(height_N, width_N), axis=-1).astype(np.float64)
        region_N2 = (params.bottom_right.astype(np.float64) - params.top_left) * size_N2
        start_N2, end_N2 = params.top_left.copy(), params.bottom_right.copy()
        start_N2[params.flip, 1] = params.bottom_right[params.flip, 1]
        end_N2[params.flip, 1] = params.top_left[
            params.flip, 1
        ]  # DALI mirrors a region whose ends are swapped
        contrast_N33 = params.contrast_offset[:, None, None] * self._scale[:, None] * LUMA
        return {
            "roi_start": start_N2,
            "roi_end": end_N2,
            "colour": (self._scale[:, None] * params.colour).astype(np.float32),
            "contrast": contrast_N33.astype(np.float32),
            "offset": (self._scale * (params.offset - 255.0 * self._mean)).astype(np.float32),
            "blur": params.blur,
            "blur_sigma": np.broadcast_to(self._blur.sigmas(region_N2), (num, 2)),
        }


def _build(blur: BlurPlan, device: torch.device, num_threads: int, max_pictures: int) -> Any:
    """The graph. CPU and GPU differ in where the decoder puts its pictures; all else follows them."""
    # DALI's stubs lag behind its arguments, hence Any.
    fn: Any = importlib.import_module("nvidia.dali.fn")
    types: Any = importlib.import_module("nvidia.dali.types")
    crop, small = [blur.crop_size] * 2, [blur.size] * 2
    decoder, on_gpu = _decoder(device), device.type == "cuda"

    def argument(name: str, ndim: int, dtype: Any = types.FLOAT) -> Any:
        return fn.external_source(name=name, device="cpu", dtype=dtype, ndim=ndim)

    def graph() -> Any:
        picture = fn.decoders.image(argument("jpeg", 1, types.UINT8), device=decoder, output_type=types.RGB)
        region = {
            "roi_start": argument("roi_start", 1),
            "roi_end": argument("roi_end", 1),
            "roi_relative": True,
            "dtype": types.FLOAT,
        }
        blur_sigma = argument("blur_sigma", 1)
        if argument("blur", 0, types.BOOL):  # DALI splits the batch here, a picture at a time
            resized = fn.resize(picture, size=small, **region)
            resized = fn.gaussian_blur(resized, window_size=blur.window, sigma=blur_sigma)
            resized = fn.resize(resized, size=crop)
        else:
            resized = fn.resize(picture, size=crop, **region)
        mean = fn.reductions.mean(resized, axes=[0, 1], keep_dims=True)
        if on_gpu:
            mean = mean.cpu()  # three numbers a picture; operators take their arguments from the host
        offset = fn.coord_transform(mean, M=argument("contrast", 2), T=argument("offset", 1))
        offset = fn.squeeze(offset, axes=[0, 1])
        return fn.coord_transform(resized, M=argument("colour", 2), T=offset, dtype=types.FLOAT)

    return _pipeline(graph, device, num_threads, max_pictures)


def _build_probe(device: torch.device, num_threads: int, max_pictures: int) -> Any:
    """Decoding alone, to find the clip that fails a batch."""
    fn: Any = importlib.import_module("nvidia.dali.fn")
    types: Any = importlib.import_module("nvidia.dali.types")
    decoder = _decoder(device)

    def graph() -> Any:
        jpeg = fn.external_source(name="jpeg", device="cpu", dtype=types.UINT8, ndim=1)
        return fn.decoders.image(jpeg, device=decoder, output_type=types.RGB)

    return _pipeline(graph, device, num_threads, max_pictures)


def _decoder(device: torch.device) -> str:
    return "mixed" if device.type == "cuda" else "cpu"


def _pipeline(graph: Callable[[], Any], device: torch.device, num_threads: int, max_pictures: int) -> Any:
    dali: Any = importlib.import_module("nvidia.dali")
    pipe = dali.pipeline_def(
        graph,
        batch_size=max_pictures,
        num_threads=num_threads,
        device_id=(device.index or 0) if device.type == "cuda" else None,
        exec_dynamic=True,
        # Depth 1 runs ahead by as many batches as were fed; a deeper queue would want several at first.
        prefetch_queue_depth=1,
        enable_conditionals=True,
    )()
    pipe.build()
    return pipe


def _gist(error: RuntimeError) -> str:
    """The line of DALI's many that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for place, line in enumerate(lines):
        if line == "encountered:" and place + 1 < len(lines):
            return lines[place + 1]
    return lines[0] if lines else "no message"
