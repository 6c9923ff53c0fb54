"""Films of drifting textures and what is made of them, for benchmarks of every way to read a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slicfast.bench.texture import texture_frames
from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import StoreSettings, prepare
from slicfast.data.store import ClipStore
from slicfast.errors import MachineError

SIZE = (320, 240)  # pixels, as UCF101 has them
NUM_VIDEOS, NUM_FRAMES = 8, 64
# Codec -> (suffix, encoder, options); key frames as far apart as these encoders put them by themselves.
CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("mp4", "libx264", {"preset": "veryfast", "x264-params": "log-level=none"}),
    "mpeg4": ("avi", "mpeg4", {}),
    "vp9": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
}


def draw_films(folder: Path, codec: str) -> Path:
    """A folder of films in one codec. Raises MachineError where this FFmpeg cannot write it."""
    import av

    suffix, encoder, options = CODECS[codec]
    if encoder not in av.codecs_available:
        raise MachineError(f"this FFmpeg (PyAV) has no encoder {encoder}; leave out the codec {codec}")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(NUM_VIDEOS):
        with av.open(str(folder / f"texture_{number}.{suffix}"), "w") as container:
            stream: Any = container.add_stream(encoder, rate=25, options=options)
            stream.width, stream.height = SIZE
            stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
            for picture in texture_frames(rng, NUM_FRAMES, *SIZE):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


def store_of(videos: Path, codec: str) -> ClipStore:
    """A clip store of a folder of films; codec as `prepare --codec` has it."""
    path = videos.with_name(f"{videos.name}-{codec}")
    root = str(videos.absolute()) if codec == "files" else None
    prepare(read_catalog(videos, "flat"), path, StoreSettings(codec=codec, root=root))
    return ClipStore(path)
