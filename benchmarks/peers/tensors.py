"""The augmentations on torch tensors by torchvision's transforms v2, as its documentation advises: 8-bit
pictures of a whole clip at once, crop and resize first with antialiasing, float only at the end."""

from __future__ import annotations

import torch

from benchmarks.peers.factors import Factors
from benchmarks.peers.peer import FilePeer, pixel_region
from slicfast.config import Config
from slicfast.data.augment import ClipParams
from slicfast.device import ensure_torchvision_imports


class TensorPeer(FilePeer):
    """A peer whose `read` gives a (T, 3, H, W) uint8 RGB tensor."""

    def __init__(self, config: Config) -> None:
        ensure_torchvision_imports()
        from torchvision.transforms.v2 import functional

        self._functional = functional
        self._config = config

    def augment(self, pictures: torch.Tensor, params: ClipParams, n: int) -> torch.Tensor:
        transform, data, augment = self._functional, self._config.data, self._config.augment
        top, left, height, width = pixel_region(params, n, *pictures.shape[-2:])
        clip = transform.resized_crop(
            pictures, top, left, height, width, [data.crop_size] * 2, antialias=True
        )
        if params.flip[n]:
            clip = transform.horizontal_flip(clip)
        factors = Factors.of(params, n)
        for name, value in factors.operators:
            clip = getattr(transform, f"adjust_{name}")(clip, value)
        if factors.grey:
            clip = transform.rgb_to_grayscale(clip, num_output_channels=3)
        if params.blur[n]:
            clip = transform.gaussian_blur(clip, [augment.blur_kernel] * 2, [augment.blur_sigma] * 2)
        clip = transform.to_dtype(clip, torch.float32, scale=True)
        clip = transform.normalize(clip, list(data.mean), list(data.std), inplace=True)
        return clip.transpose(0, 1)
