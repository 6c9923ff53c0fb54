"""A small data set of procedural action videos, written as real video files: what the demo trains on.

It has the structure of UCF101: a class has several groups, a group is one person at one place filmed 4 to 7
times, and groups never cross from one split to another. So bodies, clothes, textures and backgrounds of the
test videos are never seen in training. Figures glide through the picture and the camera moves a little, so
that average pixels say little about the class; all classes move equally much, yet where in the picture they
move still says a good deal in the default set, which is why average frame differences are printed beside
every result. Figures of several sizes at places far apart (`figure_size`, `place`, `rise`) before a camera
that moves more take that away; `shared_scenes` makes the opposite of UCF101: all classes in every scene.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from slicfast.data.synthetic_figures import ACTIONS
from slicfast.data.synthetic_scenes import CODECS, Clip, PlannedVideo, SyntheticConfig, render
from slicfast.errors import DataError

__all__ = ["PlannedVideo", "SyntheticConfig", "SyntheticSummary", "plan", "render", "write_dataset"]

Progress = Callable[[int, int], None]  # videos done, videos in all

SPLITS = ("train", "val", "test")
MARKER = "synthetic.json"
VERSION = 2  # of the drawing: raise it when the same parameters give other pictures


@dataclass(frozen=True)
class SyntheticSummary:
    """What `write_dataset` made or found."""

    root: Path
    num_videos: dict[str, int]  # a split
    num_classes: int
    num_written: int
    bytes: int


def plan(config: SyntheticConfig) -> list[PlannedVideo]:
    """Every video of the set, ordered by split, class and group. Raises ConfigError for impossible values."""
    config.check()
    groups = {"train": config.train_groups, "val": config.val_groups, "test": config.test_groups}
    videos = []
    first_group = 1
    for split_idx, split in enumerate(SPLITS):
        for action in config.actions:
            action_idx = list(ACTIONS).index(action)
            for group in range(first_group, first_group + groups[split]):
                stream = (config.seed, split_idx, group, action_idx)
                scene = (config.seed, split_idx, group, 0 if config.shared_scenes else 1 + action_idx)
                num_videos = int(
                    np.random.default_rng((*stream, 1)).integers(config.min_videos, config.max_videos + 1)
                )
                for member in range(1, num_videos + 1):
                    name = f"{split}/{action}/{action}_g{group:02d}_c{member:02d}.mp4"
                    videos.append(PlannedVideo(name, split, action, group, (*scene, 2), (*stream, 3, member)))
        first_group += groups[split]
    return videos


def write_dataset(
    root: str | Path,
    config: SyntheticConfig | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> SyntheticSummary:
    """Write the set as `root/<split>/<class>/<class>_gXX_cYY.mp4`, in parallel.

    A complete set of the same parameters is left as it is, an interrupted one is completed.

    Args:
        workers: processes; 0: one for each core this process may use.
        progress: called with (videos done, videos in all).

    Raises:
        ConfigError: values that cannot be drawn.
        DataError: `root` holds something else, or cannot be written.
    """
    config = config or SyntheticConfig()
    videos = plan(config)
    root = Path(root)
    try:
        _claim(root, config)
        for folder in sorted({(root / video.id).parent for video in videos}):
            folder.mkdir(parents=True, exist_ok=True)
        missing = [video for video in videos if not (root / video.id).exists()]
        workers = workers or len(os.sched_getaffinity(0))
        done = len(videos) - len(missing)
        for _ in _run(root, missing, config, min(workers, len(missing))):
            done += 1
            if progress is not None:
                progress(done, len(videos))
        size = sum((root / video.id).stat().st_size for video in videos)
    except OSError as error:
        raise DataError(
            f"cannot write videos under {root}: {error.strerror or error};"
            " free some space or choose another folder"
        ) from None
    counts = {split: sum(video.split == split for video in videos) for split in SPLITS}
    return SyntheticSummary(root, counts, len(config.actions), len(missing), size)


def _claim(root: Path, config: SyntheticConfig) -> None:
    """Write the parameters into a new or empty folder, or find the same ones there."""
    wanted: dict[str, Any] = json.loads(json.dumps({"version": VERSION, **asdict(config)}))
    marker = root / MARKER
    if marker.exists():
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if isinstance(
            found, dict
        ):  # a set written before a factor could be chosen was drawn with its default
            found = json.loads(json.dumps(asdict(SyntheticConfig()))) | found
        if found != wanted:
            keys = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
            raise DataError(
                f"{root} holds a procedural data set of other parameters ({', '.join(keys)});"
                " choose another folder or remove it"
            )
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists and is no procedural data set; choose a new or empty folder")
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f".{MARKER}.part"
    temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    temporary.replace(marker)


def _run(root: Path, videos: list[PlannedVideo], config: SyntheticConfig, workers: int) -> Iterator[None]:
    if workers <= 1:
        for video in videos:
            _write(root, video, config)
            yield
        return
    # spawn: a forked child of a process that holds threads (torch, DALI) may hang
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_write, root, video, config) for video in videos]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        finally:
            pool.shutdown(cancel_futures=True)


def _write(root: Path, video: PlannedVideo, config: SyntheticConfig) -> None:
    """Draw and encode one video; it appears under its name only when whole."""
    import cv2

    cv2.setNumThreads(1)
    path = root / video.id
    temporary = path.with_name(f".{path.name}.part")
    encode(temporary, render(video, config), config)
    temporary.replace(path)


def encode(path: Path, clip_THWC: Clip, config: SyntheticConfig) -> None:
    """Write frames as an MP4 file whatever the path's extension; the same frames give the same bytes."""
    import av

    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(config.codec, rate=config.fps, options=CODECS[config.codec])
        stream.width, stream.height, stream.pix_fmt = config.width, config.height, "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in clip_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
