"""Small videos, pictures and stores made on the fly, for tests of several parts."""

from __future__ import annotations

import zlib

import cv2
import numpy as np

from slicfast.data.store_writer import VideoRecord


def smooth_video(generator: np.random.Generator, num_frames: int, width: int, height: int) -> np.ndarray:
    """(T, H, W, 3) uint8: a few colour waves drifting at random speeds, so that JPEG keeps them well."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    time_T11 = np.arange(num_frames, dtype=np.float64)[:, None, None]
    video_THWC = np.empty((num_frames, height, width, 3))
    for channel in range(3):
        kx, ky, speed = generator.uniform(-0.25, 0.25, 3)
        wave_THW = np.sin(kx * columns + ky * rows + speed * time_T11 + generator.uniform(0, 6.28))
        video_THWC[..., channel] = generator.uniform(90, 160) + 80 * wave_THW
    return video_THWC.clip(0, 255).astype(np.uint8)


def encode_pictures(video_THWC: np.ndarray, quality: int = 90) -> list[bytes]:
    """A JPEG of each RGB picture."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return [cv2.imencode(".jpg", frame[..., ::-1], options)[1].tobytes() for frame in video_THWC]


def record_of(
    video_id: str, label: str | None, pictures: list[bytes], width: int, height: int, fps: float = 25.0
) -> VideoRecord:
    """The record that belongs to some JPEGs."""
    sizes, crcs = [len(picture) for picture in pictures], [zlib.crc32(picture) for picture in pictures]
    return VideoRecord(video_id, label, fps, width, height, sizes, crcs)
