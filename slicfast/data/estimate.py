"""What preparing a catalog would come to, from headers and a few pictures of an even sample of videos."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from slicfast.data.catalog import Catalog, Video
from slicfast.data.decode import DEFAULT_FPS, open_video, quiet_ffmpeg
from slicfast.data.fetch import fetch
from slicfast.data.remote import Remote
from slicfast.data.source import stat_source
from slicfast.data.store_format import StoreSettings
from slicfast.data.transcode import transcode
from slicfast.errors import ConfigError, DataError

NUM_HEADERS = 300  # videos whose headers are read
NUM_FETCHED = 8  # remote videos that are looked at, in a temporary folder
NUM_TRANSCODED = 12  # of these, how many are transcoded in part
NUM_PICTURES = 8


@dataclass(frozen=True)
class Estimate:
    """What a catalog would come to.

    Attributes:
        num_videos: of the catalog, as limited.
        hours: of video, scaled up from the sample.
        bytes: of the store, scaled up from the sample.
        unreadable: reason of each sampled video whose header cannot be read.
        num_sampled: videos looked at; equal to num_videos when the numbers are not scaled up.
    """

    num_videos: int
    hours: float
    bytes: int
    unreadable: dict[str, str]
    num_sampled: int


def estimate(
    catalog: Catalog,
    limit: int | None = None,
    settings: StoreSettings | None = None,
    keep_original: bool = False,
) -> Estimate:
    """Videos, hours and bytes of preparing a catalog, within seconds whatever its size.

    Raises ConfigError (limit) and DataError (an empty catalog).
    """
    settings = settings or StoreSettings()
    if not catalog.videos:
        raise DataError(f"no videos under {catalog.root}")
    videos = spread(catalog.videos, limit)
    is_remote = any(isinstance(video.path, Remote) for video in videos)
    sample = spread(videos, min(NUM_FETCHED if is_remote else NUM_HEADERS, len(videos)))
    unreadable: dict[str, str] = {}
    lengths: dict[str, tuple[float, float]] = {}
    readable: list[Video] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="slicfast-"))) if is_remote else Path()
        for number, video in enumerate(sample):
            try:
                here = _fetched(video, folder / str(number))
                lengths[video.id] = _length(here)
                readable.append(here)
            except DataError as error:
                unreadable[video.id] = str(error)
        scale = len(videos) / len(sample)
        seconds = scale * sum(seconds for seconds, _ in lengths.values())
        if settings.fps is None:
            num_pictures = scale * sum(pictures for _, pictures in lengths.values())
        else:
            num_pictures = seconds * settings.fps
        num_bytes = num_pictures * _bytes_a_picture(spread(readable, NUM_TRANSCODED), settings)
        if keep_original:
            num_bytes += scale * sum(
                size for size in {v.path: stat_source(v.path).size for v in readable}.values()
            )
    return Estimate(len(videos), seconds / 3600, round(num_bytes), unreadable, len(sample))


def _fetched(video: Video, target: Path) -> Video:
    """The video as a file here. Raises DataError."""
    if not isinstance(video.path, Remote):
        return video
    target = target.with_suffix(Path(video.path.name).suffix)
    fetch(video.path, target)
    return replace(video, path=target)


def spread(videos: Sequence[Video], limit: int | None) -> Sequence[Video]:
    """`limit` videos evenly spaced over the catalog, so that every class has its share; all for None."""
    if limit is None or limit >= len(videos):
        return videos
    if limit < 1:
        raise ConfigError(f"limit must be at least 1 video; got {limit}")
    return [videos[number * len(videos) // limit] for number in range(limit)]


def _length(video: Video) -> tuple[float, float]:
    """Seconds and pictures of a video, or of the segment of it. Raises DataError."""
    assert isinstance(video.path, Path)
    stat_source(video.path)
    with quiet_ffmpeg(), open_video(video.path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
        if stream.duration:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / 1e6
        else:  # the header does not tell: count what is there, without decoding it
            seconds = sum(bool(packet.size) for packet in container.demux(stream)) / rate
        num_pictures = stream.frames or seconds * rate
    start_s, end_s = video.start_s or 0.0, seconds if video.end_s is None else min(seconds, video.end_s)
    share = max(0.0, end_s - start_s) / seconds if seconds else 1.0
    return seconds * share, num_pictures * share


def _bytes_a_picture(videos: Sequence[Video], settings: StoreSettings) -> float:
    """Mean over the first pictures of some videos, with their part in the index (8) and the record (20)."""
    num_bytes = num_pictures = 0
    for video in videos:
        assert isinstance(video.path, Path)
        try:
            made = transcode(
                video.path,
                io.BytesIO(),
                replace(settings, fps=None),
                start_s=video.start_s,
                end_s=video.end_s,
                max_pictures=NUM_PICTURES,
            )
        except DataError:
            continue
        num_bytes += sum(made.sizes)
        num_pictures += len(made.sizes)
    return num_bytes / num_pictures + 28 if num_pictures else 0.0
