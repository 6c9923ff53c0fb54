"""OpenCV: VideoCapture over FFmpeg, and OpenCV's operators in their cheapest forms, a frame at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.peers.factors import Factors
from benchmarks.peers.peer import FilePeer, Frames, pixel_region, stride_of
from slicfast.config import Config
from slicfast.data.augment import ClipParams

_LEVELS = np.arange(256.0)


class OpenCVPeer(FilePeer):
    """A capture a clip, one decoding thread; colours on the small pictures, by tables where tables do."""

    name = "OpenCV"

    def __init__(self, config: Config) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._cv2 = cv2
        self._config = config
        mean, std = (torch.tensor(values) for values in (config.data.mean, config.data.std))
        self._scale, self._shift = 1.0 / (255.0 * std), -mean / std

    def read(self, file: Path, frames_T: Frames) -> list[Any]:
        cv2, stride = self._cv2, stride_of(frames_T)
        capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if frames_T[0]:
            capture.set(cv2.CAP_PROP_POS_FRAMES, int(frames_T[0]))
        pictures: list[Any] = []
        for number in range(int(frames_T[0]), int(frames_T[-1]) + 1):
            if not capture.grab():
                raise ValueError(f"{file}: OpenCV finds no frame {number}")
            if (number - int(frames_T[0])) % stride == 0:
                pictures.append(capture.retrieve()[1])
        capture.release()
        return pictures

    def augment(self, pictures: list[Any], params: ClipParams, n: int) -> torch.Tensor:
        cv2, data, augment = self._cv2, self._config.data, self._config.augment
        top, left, height, width = pixel_region(params, n, *pictures[0].shape[:2])
        factors = Factors.of(params, n)
        clip_THWC = np.empty((len(pictures), data.crop_size, data.crop_size, 3), dtype=np.uint8)
        for picture, out in zip(pictures, clip_THWC, strict=True):
            region = picture[top : top + height, left : left + width]
            small = cv2.resize(region, (data.crop_size,) * 2, interpolation=cv2.INTER_LINEAR)
            if params.flip[n]:
                small = cv2.flip(small, 1)
            cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=out)
            for name, value in factors.operators:
                getattr(self, f"_adjust_{name}")(out, value)
            if factors.grey:
                cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB, dst=out)
            if params.blur[n]:
                cv2.GaussianBlur(out, (augment.blur_kernel,) * 2, augment.blur_sigma, dst=out)
        clip = torch.from_numpy(clip_THWC).to(torch.float32).mul_(self._scale).add_(self._shift)
        return clip.permute(3, 0, 1, 2)

    def _adjust_brightness(self, picture: Any, factor: float) -> None:
        self._cv2.LUT(picture, _table(_LEVELS * factor), dst=picture)

    def _adjust_contrast(self, picture: Any, factor: float) -> None:
        mean = self._cv2.mean(self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2GRAY))[0]
        self._cv2.LUT(picture, _table(_LEVELS * factor + (1 - factor) * mean), dst=picture)

    def _adjust_saturation(self, picture: Any, factor: float) -> None:
        cv2 = self._cv2
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        cv2.addWeighted(picture, factor, grey, 1 - factor, 0, dst=picture)

    def _adjust_hue(self, picture: Any, turns: float) -> None:
        cv2 = self._cv2
        hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)  # 8-bit hue has 180 steps
        turned = np.mod(_LEVELS + 180 * turns, 180).astype(np.uint8)
        cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), turned), hsv, 0)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=picture)


def _table(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.rint(values).clip(0, 255).astype(np.uint8)
