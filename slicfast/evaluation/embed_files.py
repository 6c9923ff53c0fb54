"""`slicfast embed`: any video files into a features file; stopped or killed, it goes on where it was."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicfast import __version__
from slicfast.data.catalogs.plain import select_listed
from slicfast.data.catalogs.scan import explain_no_videos, scan
from slicfast.data.sources.file_sources import ClipPlan
from slicfast.engine.video_embedding import Embedded, Encoder, FeatureKind, VideoInput
from slicfast.errors import DataError
from slicfast.evaluation.features_file import FORMAT, VERSION, FeaturesFile, require_writable_kind
from slicfast.evaluation.partial_features import (
    Entry,
    PartialFeatures,
    entries_of,
    partial_folder,
    require_same_settings,
)
from slicfast.progress import track

LIST_SUFFIXES = (".txt", ".list", ".lst", ".csv", ".tsv")


@dataclass(frozen=True)
class EmbedReport:
    """What an embedding did.

    Attributes:
        num_videos, num_rows: in the output.
        num_done: embedded now.
        left_out: id -> reason.
    """

    output: Path
    num_videos: int
    num_rows: int
    dim: int
    num_done: int
    left_out: dict[str, str]


def find_videos(names: Iterable[str]) -> list[VideoInput]:
    """The videos meant by files, folders, patterns (``*``, ``**``) and lists (as `prepare` reads them).

    In the order given, a folder's sorted by name, each once. What a list names and is not there is kept, so
    that it is left out with its reason.

    Raises:
        DataError: a name without a file, a folder or pattern without videos, a bad list.
    """
    found: dict[str, VideoInput] = {}
    for name in names:
        for video in _meant_by(name):
            found.setdefault(video.name, video)
    return list(found.values())


def _meant_by(name: str) -> list[VideoInput]:
    path = Path(name)
    if path.is_dir():
        tree = scan(path)
        if not tree.ids:
            raise explain_no_videos(path, tree)
        return [VideoInput(str(path / video_id), path / video_id) for video_id in tree.ids]
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        selection = select_listed(Path.cwd(), [("all", path.absolute())])
        listed = [VideoInput(v.id, v.path, v.start_s, v.end_s) for v in selection.videos.values()]
        listed += [VideoInput(missing, Path(missing)) for missing in sorted(selection.missing)]
        if not listed:
            raise DataError(f"list {path} names no video; expected one a line")
        return listed
    if path.exists():
        return [VideoInput(name, path)]
    matches = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []
    if not matches:
        what = "nothing matches" if glob.has_magic(name) else "no file, folder or list at"
        raise DataError(f"{what} {name}")
    return [video for match in matches if match != name for video in _meant_by(match)]


def embedding_meta(encoder: Encoder, features: FeatureKind, plan: ClipPlan) -> dict[str, Any]:
    """What makes these vectors: saved with them, so that a query is made alike."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "slicfast": __version__,
        "checkpoint": None if encoder.source is None else str(encoder.source.absolute()),
        "fingerprint": encoder.fingerprint(features),
        "features": features,
        "num_clips": plan.num_clips,
        "clip_length": plan.clip_length,
        "clip_stride": plan.clip_stride,
        "crop_size": plan.crop_size,
        "resize": list(plan.resize),
        "short_side": plan.short_side,
        "fps": plan.fps,
        "window_s": plan.window_s,
        "hop_s": plan.hop_s,
    }


def embed_files(
    encoder: Encoder,
    videos: Sequence[VideoInput],
    output: Path,
    *,
    features: FeatureKind = "pooled",
    plan: ClipPlan | None = None,
    num_threads: int | None = None,
    strict: bool = False,
) -> EmbedReport:
    """Embed the videos that ``output`` does not hold yet, and write it whole at the end.

    Whatever ends it early, the same call goes on where it was: videos done are kept beside the output.

    Args:
        output: .npz or .parquet; one that exists must have been made with the same settings.
        strict: raise for a video that cannot be read, instead of leaving it out.

    Raises:
        ConfigError, DataError, MachineError, RunError: one line; what was done is kept.
        KeyboardInterrupt: likewise, with a message that says where.
    """
    require_writable_kind(output)
    plan = plan or encoder.plan
    dim = encoder.num_features(features)
    sources = {video.name: _source(video) for video in videos}
    meta = embedding_meta(encoder, features, plan)
    if _is_complete(output, meta, sources):
        return _report(output, list(entries_of(FeaturesFile(output).table)), dim, num_done=0)
    with PartialFeatures(output, meta, dim) as partial:
        todo = [v for v in videos if _is_due(partial.entries.get(v.name), sources[v.name])]
        results = encoder.embed_each(todo, features, plan, num_threads=num_threads)
        num_before = len(videos) - len(todo)
        with closing(results), track("Embedding", len(videos), unit="videos", done=num_before) as bar:
            try:
                for result in results:
                    if result.reason and strict:
                        raise DataError(f"{result.video.name}: {result.reason}")
                    partial.add(_entry(result, *sources[result.video.name]), result.features)
                    bar.advance()
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"{bar.done} of {len(videos)} videos are kept in {partial.folder};"
                    " the same command goes on with the others"
                ) from None
        kept = [partial.entries[video.name] for video in videos]
        if kept and all(entry.reason for entry in kept):
            raise DataError(
                f"none of {len(kept)} videos could be read; the first, {kept[0].id}: {kept[0].reason}"
            )
        partial.join([video.name for video in videos])
        num_new = sum(not partial.entries[video.name].reason for video in todo)
    return _report(output, kept, dim, num_new)


def _is_complete(output: Path, meta: dict[str, Any], sources: dict[str, tuple[int, int]]) -> bool:
    """Whether the output holds just these videos, and nothing is under way."""
    if not output.exists() or partial_folder(output).exists():
        return False
    table = FeaturesFile(output).table
    require_same_settings(table.meta, meta, output, "choose another file or remove it")
    entries = {entry.id: entry for entry in entries_of(table)}
    return entries.keys() == sources.keys() and not any(
        _is_due(entry, sources[video_id]) for video_id, entry in entries.items()
    )


def _report(output: Path, entries: list[Entry], dim: int, num_done: int) -> EmbedReport:
    left_out = {entry.id: entry.reason for entry in entries if entry.reason}
    return EmbedReport(
        output=output,
        num_videos=len(entries) - len(left_out),
        num_rows=sum(len(entry.start_s) for entry in entries),
        dim=dim,
        num_done=num_done,
        left_out=left_out,
    )


def _source(video: VideoInput) -> tuple[int, int]:
    """Size and time of the file, zeros where there is none."""
    try:
        found = os.stat(video.source)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _is_due(entry: Entry | None, source: tuple[int, int]) -> bool:
    return entry is None or (entry.source_size, entry.source_mtime_ns) != source


def _entry(result: Embedded, size: int, mtime_ns: int) -> Entry:
    facts = result.facts
    if result.reason:
        return Entry(result.video.name, source_size=size, source_mtime_ns=mtime_ns, reason=result.reason)
    return Entry(
        id=result.video.name,
        start_s=[round(second, 3) for second in facts.row_start_s],
        end_s=[round(second, 3) for second in facts.row_end_s],
        duration_s=round(facts.duration_s, 3),
        fps=round(facts.fps, 4),
        num_frames=facts.num_frames,
        source_size=size,
        source_mtime_ns=mtime_ns,
    )
