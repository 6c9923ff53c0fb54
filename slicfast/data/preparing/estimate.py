"""What preparing a catalog would come to, from headers and a few pictures of an even sample of videos.

Files are opened by worker processes alone, as when preparing: one that crashes or hangs FFmpeg is told of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from slicfast.data.catalog import Catalog, Video
from slicfast.data.preparing.fetch import fetch
from slicfast.data.preparing.remote import OutputFull, Remote
from slicfast.data.preparing.source import stat_source
from slicfast.data.preparing.workers import Result, Task, WorkerPool
from slicfast.data.stores.format import StoreSettings
from slicfast.device import num_cores
from slicfast.errors import ConfigError, DataError, MachineError

NUM_HEADERS = 300  # videos whose headers are read
NUM_FETCHED = 8  # remote videos that are looked at, in a temporary folder
NUM_TRANSCODED = 12  # of these, how many are transcoded in part
NUM_PICTURES = 8
LIMIT_S = 120.0  # for looking at a video, fetching included
STALL_S = 30.0  # without any progress


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
    *,
    workers: int = 0,
    limit_s: float = LIMIT_S,
) -> Estimate:
    """Videos, hours and bytes of preparing a catalog, within seconds whatever its size.

    Args:
        workers: processes; 0 for one a core that this process may use.
        limit_s: seconds after which a video is given up, and told as one that cannot be read.

    Raises:
        ConfigError: a bad `limit`.
        DataError: an empty catalog.
        MachineError: workers cannot be started; no room for what is fetched.
    """
    settings = settings or StoreSettings()
    if not catalog.videos:
        raise DataError(f"no videos under {catalog.root}")
    videos = spread(catalog.videos, limit)
    is_remote = any(isinstance(video.path, Remote) for video in videos)
    sample = spread(videos, min(NUM_FETCHED if is_remote else NUM_HEADERS, len(videos)))
    with TemporaryDirectory(prefix="slicfast-") as folder:
        look = _Look(Path(folder), settings, workers or num_cores(), limit_s)
        lengths = look.lengths(sample)
        scale = len(videos) / len(sample)
        seconds = scale * sum(seconds for seconds, _ in lengths.values())
        if settings.fps is None:
            num_pictures = scale * sum(pictures for _, pictures in lengths.values())
        else:
            num_pictures = seconds * settings.fps
        readable = [video for video in sample if video.id in lengths]
        num_bytes = num_pictures * look.bytes_a_picture(spread(readable, NUM_TRANSCODED))
        if keep_original:
            num_bytes += scale * sum({v.path: stat_source(v.path).size for v in readable}.values())
    return Estimate(len(videos), seconds / 3600, round(num_bytes), look.unreadable, len(sample))


def spread(videos: Sequence[Video], limit: int | None) -> Sequence[Video]:
    """`limit` videos evenly spaced over the catalog, so that every class has its share; all for None."""
    if limit is None or limit >= len(videos):
        return videos
    if limit < 1:
        raise ConfigError(f"limit must be at least 1 video; got {limit}")
    return [videos[number * len(videos) // limit] for number in range(limit)]


class _Look:
    """A sample of videos, looked at by workers that leave what they fetch and make in `folder`.

    Attributes:
        unreadable: reason of each video that cannot be read, by id.
    """

    def __init__(self, folder: Path, settings: StoreSettings, num_workers: int, limit_s: float) -> None:
        self._folder = folder
        self._settings = replace(settings, fps=None)
        self._num_workers = num_workers
        self._limit_s = limit_s
        self._fetched: dict[str, Path] = {}
        self.unreadable: dict[str, str] = {}

    def lengths(self, videos: Sequence[Video]) -> dict[str, tuple[float, float]]:
        """Seconds and pictures of each video that can be read, by id."""
        tasks = []
        for number, video in enumerate(videos):
            try:
                tasks.append(self._task(self._visible(video, number), only_length=True))
            except DataError as error:
                self.unreadable[video.id] = str(error)
        lengths: dict[str, tuple[float, float]] = {}
        for result in self._run(tasks):
            video_id = result.task.id
            if result.length is None:
                self.unreadable[video_id] = result.reason
            else:
                lengths[video_id] = result.length
                assert isinstance(result.task.path, Path)
                self._fetched[video_id] = result.task.path
        self.unreadable = {v.id: self.unreadable[v.id] for v in videos if v.id in self.unreadable}
        return lengths

    def bytes_a_picture(self, videos: Sequence[Video]) -> float:
        """Mean over some videos' first pictures, with their part in the index (8) and the record (20)."""
        num_bytes = num_pictures = 0
        tasks = [
            self._task(replace(video, path=self._fetched[video.id]), max_pictures=NUM_PICTURES)
            for video in videos
        ]
        for result in self._run(tasks):
            if result.record is not None:
                num_bytes += sum(result.record.sizes)
                num_pictures += len(result.record.sizes)
                result.pictures.unlink(missing_ok=True)
        return num_bytes / num_pictures + 28 if num_pictures else 0.0

    def _run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        num_workers = min(self._num_workers, len(tasks))
        with WorkerPool(num_workers, self._folder, STALL_S, self._limit_s) as pool:
            for result in pool.run(tasks):
                if result is not None and result.write_error:
                    raise self._full(OSError(result.write_error, os.strerror(result.write_error)))
                if result is not None:
                    yield result

    def _task(self, video: Video, **what: Any) -> Task:
        source = stat_source(video.path)
        return Task(video.id, video.path, None, video.start_s, video.end_s, source, self._settings, **what)

    def _visible(self, video: Video, number: int) -> Video:
        """The video, as a file where only this process can see it (memory://). Raises DataError."""
        if not (isinstance(video.path, Remote) and video.path.is_in_process):
            return video
        target = self._folder / f"given-{number}{PurePosixPath(video.path.name).suffix[:16]}"
        try:
            fetch(video.path, target)
        except OutputFull as error:
            raise self._full(error.error) from None
        return replace(video, path=target)

    def _full(self, error: OSError) -> MachineError:
        return MachineError(
            f"cannot write into {self._folder.parent}: {error.strerror or error};"
            " free some space there, or set TMPDIR to a folder with more"
        )
