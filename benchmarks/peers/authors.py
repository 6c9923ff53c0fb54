"""The authors' way: a JPEG file a frame at 320 x 240, PIL, torchvision's transforms, torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.factors import Factors
from benchmarks.peers.peer import Clips, pixel_region
from slicfast.config import Config
from slicfast.data.augment import ClipParams
from slicfast.device import ensure_torchvision_imports


class AuthorsPeer:
    """A picture at a time. The DataLoader has no workers: their copies between processes are spared."""

    name = "authors' way"
    reads = "a JPEG file a frame"

    def __init__(self, config: Config) -> None:
        ensure_torchvision_imports()
        from PIL import Image
        from torchvision.transforms import functional

        self._image: Any = Image
        self._functional = functional
        self._config = config

    def read(self, clips: Clips, n: int) -> list[Any]:
        """The T pictures of clip n."""
        pictures = []
        for frame in clips.frames_NT[n].tolist():
            with self._image.open(clips.folders[n] / f"{frame:06d}.jpg") as picture:
                pictures.append(picture.convert("RGB"))
        return pictures

    def decode(self, batches: Iterable[Clips]) -> Iterator[list[Any]]:
        for clips in batches:
            yield [self.read(clips, n) for n in range(len(clips))]

    def load(self, batches: Iterable[Clips]) -> Iterator[torch.Tensor]:
        for clips in batches:
            yield from DataLoader(_ClipDataset(self, clips), batch_size=len(clips))

    def augment(self, picture: Any, params: ClipParams, n: int, factors: Factors) -> torch.Tensor:
        """(3, S, S) float32 of one picture."""
        transform, data = self._functional, self._config.data
        top, left, height, width = pixel_region(params, n, picture.height, picture.width)
        picture = transform.resized_crop(picture, top, left, height, width, [data.crop_size] * 2)
        if params.flip[n]:
            picture = transform.hflip(picture)
        for name, value in factors.operators:
            picture = getattr(transform, f"adjust_{name}")(picture, value)
        if factors.grey:
            picture = transform.to_grayscale(picture, num_output_channels=3)
        if params.blur[n]:
            augment = self._config.augment
            picture = transform.gaussian_blur(picture, [augment.blur_kernel] * 2, [augment.blur_sigma] * 2)
        return transform.normalize(transform.to_tensor(picture), list(data.mean), list(data.std))


class _ClipDataset(Dataset[torch.Tensor]):
    def __init__(self, peer: AuthorsPeer, clips: Clips) -> None:
        self._peer = peer
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, n: int) -> torch.Tensor:
        params = self._clips.params
        factors = Factors.of(params, n)
        pictures = [self._peer.augment(p, params, n, factors) for p in self._peer.read(self._clips, n)]
        return torch.stack(pictures, dim=1)
