"""Videos in every form that a reader wants: original files, a folder of JPEG frames each, a clip store.

Drawn textures are encoded at the bit rates and with the key frames of the data sets they stand for, so that
decoding them costs what decoding those does.
"""

from __future__ import annotations

import functools
import os
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slicfast.bench.harness import cpu_seconds
from slicfast.bench.texture import texture_frames
from slicfast.data.catalog import read_catalog
from slicfast.data.prepare import prepare
from slicfast.data.store import ClipStore
from slicfast.data.stores.writer import StoreWriter, VideoRecord

FRAME_QUALITY = 90  # of the JPEG frames, as of the store
SIZE = (320, 240)


@dataclass(frozen=True)
class Coding:
    """How a data set's files are encoded."""

    name: str
    extension: str
    codec: str
    fps: int
    seconds: float  # a video of the data set
    bits_per_pixel: float
    options: dict[str, str]
    tag: str | None = None


# Kinetics as usually scaled down: x264's own settings, a key frame every 250. UCF101: XviD in AVI, B-frames.
H264 = Coding("H.264 MP4", ".mp4", "libx264", 30, 10.0, 0.15, {})
_XVID = {"g": "100", "bf": "1", "sc_threshold": "1000000000"}  # no key frame but each hundredth
MPEG4 = Coding("MPEG-4 AVI", ".avi", "mpeg4", 25, 7.2, 0.28, _XVID, "XVID")
CODINGS = {"h264": H264, "mpeg4": MPEG4}


@dataclass(frozen=True)
class Cost:
    """What it took to make something of some videos."""

    cpu_s: float
    wall_s: float
    bytes: int


@dataclass(frozen=True)
class Corpus:
    """Videos, by row of the store.

    Attributes:
        files: the original file of each video.
        folders: its JPEG frames, `000000.jpg` and on.
        video_s: seconds of all videos together.
        prepared, extracted: what the store and the JPEG frames took; None where they are copies.
    """

    name: str
    store: ClipStore
    files: list[Path]
    folders: list[Path]
    size: tuple[int, int]
    video_s: float
    prepared: Cost | None = None
    extracted: Cost | None = None

    @property
    def file_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def draw_corpus(
    folder: Path,
    coding: Coding = H264,
    *,
    num_videos: int,
    num_frames: int | None = None,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
) -> Corpus:
    """Draw, encode, prepare and extract; `num_frames` None: as long as the data set's videos."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    num_frames = num_frames or round(coding.seconds * coding.fps)
    for number in range(num_videos):
        rng = np.random.default_rng([seed, number])
        pictures = texture_frames(rng, num_frames, *size)
        encode(videos / f"video_{number:02d}{coding.extension}", pictures, coding, size)
    return corpus_of(folder, videos, f"{coding.name}, {size[0]} x {size[1]}, {coding.fps} fps")


def encode(file: Path, pictures: Iterable[Any], coding: Coding, size: tuple[int, int]) -> None:
    """Write RGB pictures as one video file."""
    import av

    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream(coding.codec, rate=coding.fps, options=coding.options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = round(coding.bits_per_pixel * size[0] * size[1] * coding.fps)
        stream.codec_context.thread_count = 1
        if coding.tag is not None:
            stream.codec_context.codec_tag = coding.tag
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def corpus_of(folder: Path, videos: Path, name: str) -> Corpus:
    """The corpus of the videos under `videos`; what is made of them goes into `folder`."""
    catalog = read_catalog(videos)
    started = (cpu_seconds(), time.perf_counter())
    report = prepare(catalog, folder / "store", workers=1)
    store_cost = _cost(started, _bytes_under(folder / "store"))
    store = ClipStore(folder / "store")
    path_of = {video.id: video.path for video in catalog.videos}
    files = [path_of[name] for name in store.ids()]
    folders = [folder / "frames" / f"{row:06d}" for row in range(len(store))]
    started = (cpu_seconds(), time.perf_counter())
    sizes = [extract_frames(file, frames) for file, frames in zip(files, folders, strict=True)]
    return Corpus(
        name,
        store,
        files,
        folders,
        sizes[0],
        report.seconds_of_video,
        prepared=store_cost,
        extracted=_cost(started, _bytes_under(folder / "frames")),
    )


def _cost(started: tuple[float, float], num_bytes: int) -> Cost:
    return Cost(cpu_seconds() - started[0], time.perf_counter() - started[1], num_bytes)


def _bytes_under(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def extract_frames(file: Path, folder: Path) -> tuple[int, int]:
    """Write every frame as a JPEG file, as the authors' way wants it; width and height of the first."""
    import av

    folder.mkdir(parents=True)
    size = (0, 0)
    with av.open(str(file)) as container:
        container.streams.video[0].thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            picture = frame.to_image()
            size = size if number else picture.size
            picture.save(folder / f"{number:06d}.jpg", quality=FRAME_QUALITY)
    return size


def lengthened(corpus: Corpus, folder: Path, times: int) -> Corpus:
    """The same videos played `times` times over: packets, stored pictures and frames repeated."""
    (folder / "videos").mkdir(parents=True)
    files, folders = [], []
    records = []
    for row, file in enumerate(corpus.files):
        files.append(folder / "videos" / file.name)
        _repeat_packets(file, files[-1], times)
        folders.append(folder / "frames" / f"{row:06d}")
        folders[-1].mkdir(parents=True)
        num_frames = int(corpus.store.num_frames[row])
        for number in range(num_frames * times):
            target = corpus.folders[row] / f"{number % num_frames:06d}.jpg"
            (folders[-1] / f"{number:06d}.jpg").symlink_to(target)
        records.append((corpus.store.id(row), row, times))
    store = _copied_store(corpus.store, folder / "store", records)
    return Corpus(corpus.name, store, files, folders, corpus.size, corpus.video_s * times)


def multiplied(corpus: Corpus, folder: Path, num_videos: int) -> Corpus:
    """`num_videos` videos: files and frame folders by links, stored pictures as copies of their own."""
    (folder / "videos").mkdir(parents=True)
    files, folders, records = [], [], []
    for number in range(num_videos):
        row = number % len(corpus.files)
        source = corpus.files[row]
        files.append(folder / "videos" / f"video_{number:06d}{source.suffix}")
        os.link(source, files[-1])
        folders.append(corpus.folders[row])
        records.append((files[-1].name, row, 1))
    store = _copied_store(corpus.store, folder / "store", records)
    video_s = corpus.video_s * num_videos / len(corpus.files)
    return Corpus(corpus.name, store, files, folders, corpus.size, video_s)


def _repeat_packets(source: Path, target: Path, times: int) -> None:
    import av

    with av.open(str(source)) as first, av.open(str(target), "w") as out:
        stream = first.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in first.demux(stream) if packet.size]
        assert stream.time_base is not None and stream.average_rate is not None
        per_frame = round(1 / (stream.time_base * stream.average_rate))
        length = len(packets) * per_frame
        for k in range(times):
            for packet in packets:
                packet.stream = copy
                packet.time_base = stream.time_base
                out.mux_one(_shifted(packet, k * length))


def _shifted(packet: Any, ticks: int) -> Any:
    import av

    copy = av.Packet(bytes(packet))
    copy.stream, copy.time_base = packet.stream, packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts + ticks, packet.dts + ticks, packet.duration
    copy.is_keyframe = packet.is_keyframe
    return copy


def _copied_store(store: ClipStore, path: Path, records: Iterable[tuple[str, int, int]]) -> ClipStore:
    """A store of (id, row of `store`, how often its pictures are repeated)."""

    @functools.cache
    def stored(row: int, times: int) -> tuple[list[int], list[int], bytes]:
        found = store.frames(row, np.arange(int(store.num_frames[row])))
        pictures = [picture.tobytes() for picture in found] * times
        return [len(jpeg) for jpeg in pictures], [zlib.crc32(jpeg) for jpeg in pictures], b"".join(pictures)

    names: dict[str, str | None] = {}
    with StoreWriter(path, store.settings) as writer:
        for name, row, times in records:
            sizes, crcs, pictures = stored(row, times)
            width, height, fps = int(store.width[row]), int(store.height[row]), float(store.fps[row])
            writer.add(VideoRecord(name, None, fps, width, height, sizes, crcs), pictures)
            names[name] = None
        writer.finish(names, {"train": list(names)})
    return ClipStore(path)
