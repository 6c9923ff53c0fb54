"""Several clip stores into one: videos, labels, splits, original files and the stores inside.

Videos are copied one by one, their checksums compared on the way, so that a merge may be stopped at any
moment and the same call goes on; readers see the new store once it is whole.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slicfast.data.preparing.left_out import LeftOut, read_left_out, write_left_out
from slicfast.data.store import ClipStore, DamagedClip
from slicfast.data.stores.format import HEADER, write_atomically
from slicfast.data.stores.members import nested_stores, read_original, read_video
from slicfast.data.stores.original import segment_of
from slicfast.data.stores.writer import StoreWriter
from slicfast.errors import ConfigError, DataError, one_of

MERGED_FROM = "merged_from.json"  # what a store in the making is made of, so that the same call may go on
DUPLICATES = ("refuse", "first", "last")

logger = logging.getLogger("slicfast")

Progress = Callable[[int, int, str], None]


@dataclass
class MergeReport:
    """What a merge did.

    Attributes:
        num_videos: of the new store.
        num_copied, num_bytes: by this call; bytes of originals count.
        num_duplicates: videos passed over because another store's counts.
        damaged: why a video was left out, by id.
        nested: of the stores inside, by name.
    """

    num_videos: int = 0
    num_copied: int = 0
    num_bytes: int = 0
    num_duplicates: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    nested: dict[str, MergeReport] = field(default_factory=dict)


def merge(
    out: str | Path,
    stores: Sequence[str | Path],
    *,
    duplicates: str = "refuse",
    pictures_only: bool = False,
    progress: Progress | None = None,
) -> MergeReport:
    """Make the store `out` of all videos of `stores`, or go on making it.

    A video takes its label and its place in splits from the store that it is copied from; splits of one name
    are joined. Damaged videos are left out and named.

    Args:
        duplicates: what an id in several stores means: refuse to merge, or whose video counts: first, last.
        pictures_only: leave original files and the stores inside out.
        progress: called with (videos done, videos in all, name of the last).

    Raises:
        ConfigError: the stores have other settings, or hold other things; ids that several hold.
        DataError: one is no store; `out` is something else.
        MachineError: no space left; what is copied is kept.
        RunError: another process is writing `out`.
    """
    out = Path(out)
    if duplicates not in DUPLICATES:
        raise ConfigError(one_of("duplicates", duplicates, DUPLICATES))
    if not stores:
        raise ConfigError("no store to merge was named")
    opened = [ClipStore(path) for path in stores]
    _require_alike(opened, out)
    names = [] if pictures_only else _common_nested(opened)
    marker = {
        "stores": [str(store.path.resolve()) for store in opened],
        "duplicates": duplicates,
        "pictures_only": pictures_only,
    }
    _require_new_or_same(out, marker)
    report = MergeReport()
    try:
        _merge(out, opened, duplicates, pictures_only, marker, progress, report)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{report.num_copied} videos were copied to {out}; run the same command to go on"
        ) from None
    for name in names:
        inside = [store.path / name for store in opened]
        report.nested[name] = merge(
            out / name, inside, duplicates=duplicates, pictures_only=pictures_only, progress=progress
        )
    return report


def _merge(
    out: Path,
    stores: list[ClipStore],
    duplicates: str,
    pictures_only: bool,
    marker: dict[str, object],
    progress: Progress | None,
    report: MergeReport,
) -> None:
    rows_of, report.num_duplicates = _winners(stores, duplicates)
    total, done = sum(len(rows) for rows in rows_of), 0
    left_out: dict[str, LeftOut] = {}
    for store in stores:
        left_out |= read_left_out(store.path)
    labels: dict[str, str | None] = {}
    with StoreWriter(out, stores[0].settings) as writer:
        text = json.dumps(marker, indent=1).encode() + b"\n"
        write_atomically(out / MERGED_FROM, lambda file: file.write(text))
        for store, rows in zip(stores, rows_of, strict=True):
            names = (*store.label_names, None)  # label -1 is no label
            for row in rows.tolist():
                video_id = store.id(row)
                labels[video_id] = names[store.label_ids[row]]
                try:
                    _copy(store, row, writer, pictures_only, report)
                except DamagedClip as damage:
                    report.damaged[video_id] = damage.reason
                    left_out[video_id] = LeftOut(f"damaged in {store.path}: {damage.reason}")
                    logger.warning("left out %s: damaged in %s: %s", video_id, store.path, damage.reason)
                done += 1
                if progress is not None:
                    progress(done, total, video_id)
        splits: dict[str, list[str]] = {}
        for store, rows in zip(stores, rows_of, strict=True):
            for name in store.splits:
                splits.setdefault(name, []).extend(store.ids(np.intersect1d(store.split(name), rows)))
        still_out = {video_id: entry for video_id, entry in left_out.items() if video_id not in writer}
        if still_out:
            write_left_out(out, still_out)
        writer.finish(labels, splits)
        report.num_videos = len(writer)


def _copy(store: ClipStore, row: int, writer: StoreWriter, pictures_only: bool, report: MergeReport) -> None:
    """One video and the file it was made from, as far as they are not there yet. Raises DamagedClip."""
    if store.id(row) not in writer:
        record, data = read_video(store, row)
        writer.add(record, data.data)
        report.num_copied += 1
        report.num_bytes += len(data)
    if pictures_only or store.originals is None or store.originals.row_N[row] < 0:
        return
    video_id = store.id(row)
    if any(writer.original(name) is not None for name in (video_id, segment_of(video_id)[0])):
        return
    try:
        original, file = read_original(store, row)
    except DamagedClip as damage:
        logger.warning("the original of %s is not copied: %s", video_id, damage.reason)
        return
    writer.copy_original(original, file.data)
    report.num_bytes += len(file)


def _winners(stores: list[ClipStore], duplicates: str) -> tuple[list[np.ndarray], int]:
    """Rows to copy from each store, in the order in which they lie there, and how many are passed over."""
    owner: dict[str, int] = {}
    num_duplicates = 0
    for number, store in enumerate(stores):
        for video_id in store.ids():
            if video_id not in owner:
                owner[video_id] = number
                continue
            num_duplicates += 1
            if duplicates == "refuse":
                raise ConfigError(
                    f"'{video_id}' is in {stores[owner[video_id]].path} and in {store.path};"
                    " say whose counts with --duplicates first or --duplicates last"
                )
            if duplicates == "last":
                owner[video_id] = number
    rows_of = []
    for number, store in enumerate(stores):
        order = store.stored_order()
        rows_of.append(order[[owner[video_id] == number for video_id in store.ids(order)]])
    return rows_of, num_duplicates


def _require_alike(stores: list[ClipStore], out: Path) -> None:
    first = stores[0]
    for store in stores:
        if store.path.resolve() == out.resolve():
            raise ConfigError(f"{out} is one of the stores to merge; name a new folder first")
        if store.settings != first.settings:
            raise ConfigError(
                f"{first.path} was made with {first.settings}, {store.path} with {store.settings};"
                " only stores of the same settings can be merged"
            )


def _common_nested(stores: list[ClipStore]) -> list[str]:
    held = [{path.name for path in nested_stores(store.path)} for store in stores]
    for store, names in zip(stores, held, strict=True):
        if names != held[0]:
            name = min(names ^ held[0])
            has, lacks = (store, stores[0]) if name in names else (stores[0], store)
            raise ConfigError(
                f"{has.path} holds {name} and {lacks.path} does not; make it there too, or leave such out"
                " with --pictures-only"
            )
    return sorted(held[0])


def _require_new_or_same(out: Path, marker: dict[str, object]) -> None:
    """Only what this very merge began may be gone on with."""
    if not (out / HEADER).exists():
        return
    try:
        begun = json.loads((out / MERGED_FROM).read_bytes())
    except (OSError, ValueError):
        begun = None
    if begun is None and not any(out.glob("shards/*.tar")):
        return
    if begun != marker:
        raise DataError(f"{out} holds a clip store that was not made by this merge; name a new folder")
