"""`slicfast store ...`: what a clip store holds, whether it is sound, and several made one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slicfast.cli.output import examples, say, table
from slicfast.errors import DataError
from slicfast.progress import track

if TYPE_CHECKING:
    from slicfast.data.stores.info import StoreInfo
    from slicfast.data.stores.merge import MergeReport
    from slicfast.data.stores.verify import VerifyReport

MAX_SHOWN = 20  # damaged videos, lines a store

PathArgument = Annotated[Path, typer.Argument(metavar="STORE", help="A clip store.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Look into clip stores, check them, join them.", no_args_is_help=True, rich_markup_mode="rich"
    )
    group.command(epilog=examples(("slicfast store info data/ucf101", "")))(info)
    group.command(epilog=examples(("slicfast store verify data/ucf101", "exit code 1 where any is damaged")))(
        verify
    )
    group.command(
        epilog=examples(
            ("slicfast store merge data/both data/ucf101 data/hmdb51", ""),
            ("slicfast store merge data/new data/old data/fixed --duplicates last", "the later store counts"),
        )
    )(merge)
    app.add_typer(group, name="store")


def info(path: PathArgument, as_json: JsonOption = False) -> None:
    """Say what a clip store holds, from its index alone."""
    from slicfast.data.stores.info import store_info

    found = store_info(path)
    if as_json:
        say(json.dumps(found.to_dict(), indent=2))
        return
    _show_info(str(path), found)
    for name, inside in found.nested.items():
        _show_info(f"{path}/{name}", inside)


def _show_info(title: str, found: StoreInfo) -> None:
    from slicfast.cli.data import format_bytes

    least, median, most = found.frames
    width, height, count = found.sizes[0]
    others = f" and {len(found.sizes) - 1:,} other sizes" if len(found.sizes) > 1 else ""
    rows = [
        ("made with", str(found.settings)),
        ("videos", f"{found.num_videos:,}"),
        ("frames", f"{found.num_frames:,} ({least:,} to {most:,} a video, median {median:,})"),
        ("hours", f"{found.hours:,.2f}"),
        ("pixels", f"{width} x {height} of {count:,} videos{others}"),
        ("classes", f"{found.num_classes:,}"),
        ("videos without a class", f"{found.num_unlabelled:,}"),
        *((f"split {name}", f"{number:,} videos") for name, number in found.splits.items()),
        ("shards", f"{found.num_shards:,}, {format_bytes(found.shard_bytes)}"),
        ("index", format_bytes(found.index_bytes)),
    ]
    if found.original_files:
        kept = f"{found.original_files:,} files of {found.num_originals:,} videos"
        rows.append(("originals", f"{kept}, {format_bytes(found.original_bytes)}"))
    if found.num_left_out:
        rows.append(("left out", f"{found.num_left_out:,}, each with its reason in left_out.tsv"))
    table(title, ("", "holds"), rows)


def verify(
    path: PathArgument,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Read a whole clip store again and compare every checksum.

    Pictures, records, original files and optical flow; damaged videos are named, and the exit code is 1.
    """
    from slicfast.data.stores.verify import verify as run

    with track("Verifying", unit="videos") as bar:
        report = run(path, workers=workers, progress=bar.report)
    if as_json:
        say(json.dumps(report.to_dict(), indent=2))
    else:
        _show_verified(report)
    if report.num_damaged:
        videos = "video" if report.num_damaged == 1 else "videos"
        raise DataError(
            f"{report.num_damaged:,} damaged {videos} in {path}; training replaces their clips,"
            " preparing into a new folder mends them"
        )


def _show_verified(report: VerifyReport) -> None:
    from slicfast.cli.data import format_bytes

    for video in report.damaged[:MAX_SHOWN]:
        say(f"damaged: {video.id}: {'; '.join(video.faults)}")
    if len(report.damaged) > MAX_SHOWN:
        say(f"and {len(report.damaged) - MAX_SHOWN:,} more")
    rate = report.num_bytes / max(report.seconds, 1e-9)
    say(
        f"{report.store}: {report.num_videos:,} videos, {report.num_frames:,} frames,"
        f" {format_bytes(report.num_bytes)} checked in {report.seconds:.1f} s ({format_bytes(rate)}/s):"
        f" {f'{len(report.damaged):,} damaged' if report.damaged else 'all sound'}"
    )
    for inside in report.nested:
        _show_verified(inside)


def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Clip store to make; a new folder.")],
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Clip stores to join.")],
    duplicates: Annotated[
        str,
        typer.Option(help="Of ids that several stores hold: refuse to merge, or take the first or last one."),
    ] = "refuse",
    pictures_only: Annotated[
        bool, typer.Option("--pictures-only", help="Leave original files and optical flow out.")
    ] = False,
) -> None:
    """Join clip stores of the same settings, with their labels and splits, into a new one.

    May be stopped at any moment: the same command goes on where it was.
    """
    from slicfast.data.stores.merge import merge as run

    with track("Merging", unit="videos") as bar:
        report = run(out, stores, duplicates=duplicates, pictures_only=pictures_only, progress=bar.report)
    _show_merged(out, report)


def _show_merged(out: Path, report: MergeReport) -> None:
    from slicfast.cli.data import format_bytes

    new = f"copied now: {report.num_copied:,}, {format_bytes(report.num_bytes)}"
    say(f"{out} holds {report.num_videos:,} videos; {new if report.num_bytes else 'nothing was left to do'}")
    if report.num_duplicates:
        say(f"ids that several stores hold, one of each taken: {report.num_duplicates:,}")
    if report.damaged:
        say(f"damaged and left out: {len(report.damaged):,}, each named in {out / 'left_out.tsv'}")
    for name, inside in report.nested.items():
        _show_merged(out / name, inside)
