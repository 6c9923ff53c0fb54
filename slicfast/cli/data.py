"""`slicfast prepare`: a clip store made of any videos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slicfast.cli.output import examples, say, table
from slicfast.progress import Progress, format_duration, track

if TYPE_CHECKING:
    from slicfast.data.catalog import Catalog
    from slicfast.data.flow import Components
    from slicfast.data.prepare import Estimate, PrepareReport

MAX_SHOWN = 20  # lines about single videos


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            ("slicfast prepare data/demo data/demo-store", "a folder with a folder a class"),
            ("slicfast prepare videos/UCF-101 data/ucf101 --lists ucfTrainTestlist", "UCF101"),
            ("slicfast prepare videos store --flow", "with optical flow, for motion.view=flow"),
            ("slicfast prepare videos store --dry-run", "how long, and how large it will be"),
            ("slicfast prepare videos store --codec vp9", "several times smaller, dearer to read"),
            ("slicfast prepare videos store --codec files", "a scan: training reads the files"),
        )
    )(prepare)


def prepare(
    root: Annotated[
        str,
        typer.Argument(
            metavar="ROOT",
            help="Folder of videos, list file or tar shards ({000..012} names several); a path or a URL.",
        ),
    ],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Clip store to make, or to complete.")],
    kind: Annotated[
        str,
        typer.Option(
            help="How the videos are organised: auto, folder, flat, list, shards, ucf101, hmdb51, kinetics."
        ),
    ] = "auto",
    lists: Annotated[
        str | None,
        typer.Option(help="The data set's split lists, where they lie elsewhere.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say how many videos, hours and bytes it would be; write nothing."),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take only so many videos.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    short_side: Annotated[
        int | None,
        typer.Option(min=16, help="Stored pixels of the shorter side; 128 unless said.", show_default=False),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="JPEG quality; 90 unless said.", show_default=False)
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            help="jpeg, vp9, or files (look through them, store nothing); jpeg unless said.",
            show_default=False,
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(min=0, max=63, help="VP9's quality, 0 the best; 26 unless said.", show_default=False),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Resample to this rate; else each video keeps its own.", show_default=False),
    ] = None,
    keep_original: Annotated[
        bool,
        typer.Option("--keep-original", help="Keep the files too, whole, for decoding them on a GPU."),
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what was left out before.")] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Seconds for a video, fetching included; four hours unless said, two minutes in a dry run.",
            show_default=False,
        ),
    ] = None,
    flow: Annotated[
        bool, typer.Option("--flow", help="Also store optical flow, its horizontal part: STORE/flow-u.")
    ] = False,
    flow_both: Annotated[
        bool, typer.Option("--flow-both", help="Also store optical flow, both parts of it: STORE/flow-uv.")
    ] = False,
) -> None:
    """Turn any videos into a clip store, which training reads many times faster.

    Runs in parallel, and may be stopped at any moment: the same command goes on where it was.
    Each video that cannot be used is left out, with the reason in STORE/left_out.tsv.
    Flow may be asked for at once or later: only what is missing is made.
    """
    from slicfast.data.catalog import read_catalog
    from slicfast.data.flow import CONTENT, flow_folder
    from slicfast.data.prepare import StoreSettings
    from slicfast.data.prepare import prepare as run
    from slicfast.data.preparing import estimate as dry
    from slicfast.data.preparing.flow import outdated_flow, prepare_flow
    from slicfast.data.preparing.workers import LIMIT_S

    given: dict[str, Any] = {
        "short_side": short_side,
        "quality": quality,
        "fps": fps,
        "codec": codec,
        "crf": crf,
    }
    catalog = read_catalog(root, kind, lists)
    if codec == "files" and isinstance(catalog.root, Path):
        given["root"] = str(catalog.root.absolute())
    settings = StoreSettings.of({name: value for name, value in given.items() if value is not None})
    asked: dict[Components, bool] = {"horizontal": flow, "both": flow_both}
    parts = [components for components, wanted in asked.items() if wanted]
    if dry_run:
        told: dict[str, Any] = {"workers": workers, "limit_s": time_limit or dry.LIMIT_S}
        flows = {
            content: dry.estimate(catalog, limit, replace(settings, content=content), **told)
            for content in (CONTENT[components] for components in parts)
        }
        _show_estimate(catalog, dry.estimate(catalog, limit, settings, keep_original, **told), flows)
        return
    with track("Preparing", unit="videos") as bar:
        report = run(
            catalog,
            store,
            settings,
            workers=workers,
            limit=limit,
            retry=retry,
            keep_original=keep_original,
            progress=_on(bar),
            limit_s=time_limit or LIMIT_S,
        )
    _show_report(store, report)
    made = [flow_folder(store, components) for components in parts]
    for folder in outdated_flow(store, report.changed):
        if folder not in made:
            say(f"{folder} still holds flow of files that changed since; run again with --flow")
    for components in parts:
        with track(f"Flow, {components}", unit="videos") as bar:
            report = prepare_flow(
                catalog,
                store,
                components,
                workers=workers,
                limit=limit,
                retry=retry,
                progress=_on(bar),
                limit_s=time_limit or LIMIT_S,
            )
        _show_report(flow_folder(store, components), report, "the flow of ")
    view = "" if not parts else " --set motion.view=flow"
    if parts and "horizontal" not in parts:
        view += " --set motion.components=both"
    view = f" --set data.source=files{view}" if codec == "files" else view
    say(f"next: slicfast train CONFIG --set data.store={store}{view}")


def _on(bar: Progress) -> Callable[[int, int, int, str], None]:
    return lambda done, total, stored, name: bar.report(done, total, name)


def _show_estimate(catalog: Catalog, found: Estimate, flows: dict[str, Estimate]) -> None:
    rows = [
        ("organised as", catalog.kind),
        ("videos", f"{found.num_videos:,}"),
        ("hours", f"{found.hours:,.2f}"),
        ("bytes", f"{found.bytes:,} ({format_bytes(found.bytes)})"),
        *((f"bytes, {name}", f"{flow.bytes:,} ({format_bytes(flow.bytes)})") for name, flow in flows.items()),
        ("classes", f"{len(catalog.labels):,}"),
        *((f"split {name}", f"{len(ids):,} videos") for name, ids in catalog.splits.items()),
        ("listed but not there", f"{len(catalog.missing):,}"),
        ("unreadable", f"{len(found.unreadable):,} of {found.num_sampled:,} looked at"),
    ]
    table("What prepare would make", ("", "estimate"), rows)
    for video_id, reason in list(found.unreadable.items())[:MAX_SHOWN]:
        say(f"cannot be read: {video_id}: {reason}")
    if len(found.unreadable) > MAX_SHOWN:
        say(f"and {len(found.unreadable) - MAX_SHOWN} more")


def _show_report(store: Path, report: PrepareReport, what: str = "") -> None:
    kept = f"{store} holds {what}{report.num_kept:,} videos"
    num_new = report.num_kept - report.num_already
    if num_new:
        length = format_duration(report.seconds_of_video)
        say(f"{kept}; made now: {num_new:,}, {length} of film, {format_bytes(report.bytes)}")
    else:
        say(f"{kept}; {'none is new' if report.num_done else 'nothing was left to do'}")
    if report.num_originals:
        say(f"originals kept: {report.num_originals:,} files, {format_bytes(report.original_bytes)}")
    if report.originals_not_kept:
        say(f"originals that could not be kept: {len(report.originals_not_kept):,}")
    if report.num_left_out:
        say(f"{report.num_left_out:,} left out, each with its reason in {store / 'left_out.tsv'}")


def format_bytes(number: float) -> str:
    """`3.4 MB`, in powers of a thousand."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.3g} {unit}"
