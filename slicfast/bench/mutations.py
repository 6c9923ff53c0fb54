"""Small videos of six codecs and ways to damage them, all from a seed: what prepare must survive."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

CODECS = {  # name: container, encoder, its options
    "h264": ("mp4", "libx264", {"preset": "ultrafast", "g": "12"}),
    "mpeg4": ("avi", "mpeg4", {}),
    "vp9": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "mjpeg": ("avi", "mjpeg", {}),
    "hevc": ("mkv", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}),
    "av1": ("mkv", "libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),
}
HEADER_BYTES = 600  # in both ends of the file: containers keep their tables there


def write_videos(
    folder: Path, num_frames: int = 20, width: int = 96, height: int = 64, seed: int = 0
) -> dict[str, Path]:
    """One moving picture in each codec that this FFmpeg can write, name -> file."""
    import av
    import av.codec

    os.environ.setdefault("SVT_LOG", "1")  # its encoder would write a page to the terminal
    generator = np.random.default_rng(seed)
    texture_HWC = generator.integers(0, 256, (height // 4 + 2, width // 4 + 2, 3), dtype=np.uint8)
    texture_HWC = np.kron(texture_HWC, np.ones((8, 8, 1), dtype=np.uint8))
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, (container, encoder, options) in CODECS.items():
        try:
            av.codec.Codec(encoder, "w")
        except ValueError:  # UnknownCodecError is one
            continue
        path = folder / f"{name}.{container}"
        with av.open(str(path), "w") as out:
            stream: Any = out.add_stream(encoder, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if name == "mjpeg":
                stream.pix_fmt = "yuvj420p"
            stream.codec_context.thread_count = 1
            for number in range(num_frames):
                picture_HWC = texture_HWC[number : number + height, 2 * number : 2 * number + width]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        written[name] = path
    return written


def mutate(data: bytes, kind: str, generator: np.random.Generator) -> bytes:
    """A damaged copy of a file's bytes; `kind` is one of MUTATIONS."""
    return MUTATIONS[kind](np.frombuffer(data, dtype=np.uint8), generator).tobytes()


Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


def _flip(data: Bytes, generator: np.random.Generator) -> Bytes:
    """Some bytes anywhere take any value."""
    data = data.copy()
    places = generator.integers(0, len(data), int(2 ** generator.uniform(0, 8)))
    data[places] = generator.integers(0, 256, len(places), dtype=np.uint8)
    return data


def _zero(data: Bytes, generator: np.random.Generator) -> Bytes:
    """Blocks are lost, as on a failing disk."""
    data = data.copy()
    for _ in range(int(generator.integers(1, 4))):
        length = int(generator.integers(16, max(17, len(data) // 4)))
        start = int(generator.integers(0, len(data)))
        data[start : start + length] = 0
    return data


def _cut(data: Bytes, generator: np.random.Generator) -> Bytes:
    """The file ends early, or starts late."""
    place = int(generator.integers(1, len(data)))
    return data[:place] if generator.random() < 0.8 else data[place:]


def _insert(data: Bytes, generator: np.random.Generator) -> Bytes:
    """Foreign bytes, or a part of the file again, in the middle."""
    place = int(generator.integers(0, len(data)))
    length = int(2 ** generator.uniform(0, 12))
    start = int(generator.integers(0, len(data)))
    own = data[start : start + length]
    foreign = own if generator.random() < 0.5 else generator.integers(0, 256, length, dtype=np.uint8)
    return np.concatenate([data[:place], foreign, data[place:]])


def _header(data: Bytes, generator: np.random.Generator) -> Bytes:
    """Numbers in the container's tables become extreme or random."""
    data = data.copy()
    for _ in range(int(generator.integers(1, 6))):
        at_end = generator.random() < 0.4
        start = max(0, len(data) - HEADER_BYTES) if at_end else 0
        place = start + int(generator.integers(0, min(HEADER_BYTES, len(data))))
        width = int(generator.choice([1, 2, 4, 8]))
        value = [b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, generator.bytes(8)]
        part = value[int(generator.integers(0, 4))][: min(width, len(data) - place)]
        data[place : place + len(part)] = np.frombuffer(part, dtype=np.uint8)
    return data


MUTATIONS: dict[str, Callable[[Bytes, np.random.Generator], Bytes]] = {
    "flip": _flip,
    "zero": _zero,
    "cut": _cut,
    "insert": _insert,
    "header": _header,
}
