"""What a clip store holds, told from its index: nothing of the videos is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slicfast.data.preparing.left_out import read_left_out
from slicfast.data.store import ClipStore
from slicfast.data.stores.format import ORIGINALS, SHARDS, StoreSettings
from slicfast.data.stores.members import nested_stores


@dataclass(frozen=True)
class StoreInfo:
    """A store in numbers.

    Attributes:
        settings: how its videos are stored.
        num_videos, num_frames, hours: of video.
        frames: least, median and most a video.
        sizes: stored (width, height) and how many videos have it, the most frequent first.
        num_classes, num_unlabelled: classes, and videos without one.
        splits: name -> videos.
        num_shards, shard_bytes, index_bytes: files and bytes on the disk.
        num_originals: videos whose original file is kept.
        original_files, original_bytes: the files.
        num_left_out: videos that could not be stored.
        nested: the stores inside, such as optical flow, by name.
    """

    path: str
    settings: StoreSettings
    num_videos: int
    num_frames: int
    hours: float
    frames: tuple[int, int, int]
    sizes: tuple[tuple[int, int, int], ...]
    num_classes: int
    num_unlabelled: int
    splits: dict[str, int]
    num_shards: int
    shard_bytes: int
    index_bytes: int
    num_originals: int
    original_files: int
    original_bytes: int
    num_left_out: int
    nested: dict[str, StoreInfo]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = {name: value for name, value in vars(self).items() if name not in ("settings", "nested")}
        nested = {name: info.to_dict() for name, info in self.nested.items()}
        return {**values, "settings": self.settings.to_dict(), "nested": nested}


def store_info(path: str | Path) -> StoreInfo:
    """What the store at `path` holds. Raises DataError where there is none or its index is damaged."""
    path = Path(path)
    store = ClipStore(path)
    shards = list((path / SHARDS).glob("shard-*.tar"))
    seconds_N = store.num_frames / store.fps.astype(np.float64)
    sizes = Counter(zip(store.width.tolist(), store.height.tolist(), strict=True))
    originals = store.originals
    least, median, most = np.percentile(store.num_frames, (0, 50, 100)).astype(int).tolist()
    return StoreInfo(
        path=str(path),
        settings=store.settings,
        num_videos=len(store),
        num_frames=int(store.num_frames.sum(dtype=np.int64)),
        hours=float(seconds_N.sum()) / 3600,
        frames=(least, median, most),
        sizes=tuple((width, height, count) for (width, height), count in sizes.most_common()),
        num_classes=len(store.label_names),
        num_unlabelled=int((store.label_ids < 0).sum()),
        splits={name: len(store.split(name)) for name in store.splits},
        num_shards=len(shards),
        shard_bytes=_bytes(path / SHARDS),
        index_bytes=sum(_bytes(folder) for folder in path.glob("index-*")),
        num_originals=0 if originals is None else int((originals.row_N >= 0).sum()),
        original_files=0 if originals is None else len(originals),
        original_bytes=_bytes(path / ORIGINALS),
        num_left_out=len(read_left_out(path)),
        nested={inside.name: store_info(inside) for inside in nested_stores(path)},
    )


def _bytes(folder: Path) -> int:
    """Of all files in a folder; 0 where there is none."""
    return sum(file.stat().st_size for file in folder.glob("*"))
