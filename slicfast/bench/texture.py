"""A clip store of made-up pictures that decode at the cost of filmed ones, for benchmarks without data."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slicfast.data.store import ClipStore, StoreSettings
from slicfast.data.stores.writer import StoreWriter, VideoRecord

SIZE = (171, 128)  # width, height: 4:3 at short side 128
_NUM_VIDEOS, _NUM_FRAMES, _QUALITY = 16, 64, 90


def texture_frames(
    rng: np.random.Generator, num_frames: int, width: int, height: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """(height, width, 3) pictures of one drifting texture, with details of all sizes and a little noise."""
    import cv2

    ground = np.full((2 * height, 2 * width, 3), 128.0, dtype=np.float32)
    for scale in (4, 8, 16, 32, 64):
        coarse = rng.normal(0, 6 * scale**0.5, (2 * height // scale, 2 * width // scale, 3))
        ground += cv2.resize(
            coarse.astype(np.float32), (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC
        )
    drift = rng.uniform(-1.5, 1.5, 2)
    for k in range(num_frames):
        moved = np.array([[1, 0, -width / 2 + drift[0] * k], [0, 1, -height / 2 + drift[1] * k]])
        frame = cv2.warpAffine(ground, moved, (width, height), borderMode=cv2.BORDER_REFLECT)
        yield (frame + rng.normal(0, 3, frame.shape)).clip(0, 255).astype(np.uint8)


def texture_store(path: Path) -> ClipStore:
    """A store of drifting textures, as detailed and noisy as films."""
    import cv2

    rng = np.random.default_rng(0)
    width, height = SIZE
    with StoreWriter(path, StoreSettings(short_side=height, quality=_QUALITY)) as writer:
        names: dict[str, str | None] = {}
        for number in range(_NUM_VIDEOS):
            pictures = []
            for frame in texture_frames(rng, _NUM_FRAMES, width, height):
                options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
                pictures.append(cv2.imencode(".jpg", frame, options)[1].tobytes())
            name = f"texture_{number:02d}"
            names[name] = None
            sizes, crcs = [len(jpeg) for jpeg in pictures], [zlib.crc32(jpeg) for jpeg in pictures]
            writer.add(VideoRecord(name, None, 25.0, width, height, sizes, crcs), b"".join(pictures))
        writer.finish(names, {"train": list(names)})
    return ClipStore(path)
