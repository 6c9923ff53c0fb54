"""Small videos, pictures and stores made on the fly, for tests of several parts."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from slicfast.data.stores.writer import VideoRecord


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


def numbered_video(num_frames: int, width: int = 48, height: int = 32) -> np.ndarray:
    """(T, H, W, 3) uint8 grey pictures whose halves spell their number, up to 255; see `numbers`."""
    number_T = np.arange(num_frames)
    video_THWC = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    video_THWC[:, :, : width // 2] = (20 + 14 * (number_T % 16))[:, None, None, None]
    video_THWC[:, :, width // 2 :] = (20 + 14 * (number_T // 16))[:, None, None, None]
    return video_THWC


def numbers(video_THWC: np.ndarray) -> list[int]:
    """Which pictures of a numbered video these are."""
    width = video_THWC.shape[2]
    low_T = video_THWC[:, :, : width // 3].mean((1, 2, 3))
    high_T = video_THWC[:, :, -(width // 3) :].mean((1, 2, 3))
    return [
        round((low - 20) / 14) + 16 * round((high - 20) / 14) for low, high in zip(low_T, high_T, strict=True)
    ]


def write_video(
    path: Path,
    video_THWC: np.ndarray,
    *,
    fps: int = 25,
    codec: str = "mpeg4",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode (T, H, W, 3) RGB pictures; `times` are presentation times in milliseconds instead of `fps`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = video_THWC.shape[1:3]
        stream.pix_fmt = pix_fmt
        if codec != "ffv1":
            stream.bit_rate = 2_000_000
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(video_THWC):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def gliding_video(
    generator: np.random.Generator, num_frames: int, width: int, height: int, step: tuple[float, float]
) -> np.ndarray:
    """(T, H, W, 3) uint8: a texture that moves by `step` (pixels to the right, downwards) a picture."""
    margin = int(np.ceil(num_frames * max(map(abs, step)))) + 2
    ground = np.full((height + 2 * margin, width + 2 * margin, 3), 128, dtype=np.float32)
    for scale in (4, 8, 16):
        coarse = generator.normal(0, 25, (ground.shape[0] // scale + 1, ground.shape[1] // scale + 1, 3))
        ground += cv2.resize(coarse.astype(np.float32), ground.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    frames = []
    for number in range(num_frames):
        place = np.array([[1, 0, number * step[0] - margin], [0, 1, number * step[1] - margin]])
        frames.append(cv2.warpAffine(ground, place, (width, height), flags=cv2.INTER_CUBIC))
    return np.stack(frames).clip(0, 255).astype(np.uint8)
