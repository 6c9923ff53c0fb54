"""`slicfast report` and `slicfast figures`: a run as a page to read, and as figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicfast.cli.output import SetOption, examples, say

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, finished or not.")]
QueryOption = Annotated[
    str | None,
    typer.Option(help="Split whose videos ask; the test split unless said.", show_default=False),
]
GalleryOption = Annotated[
    str | None,
    typer.Option(help="Split in which they look; the training split unless said.", show_default=False),
]
MaxOption = Annotated[
    int | None,
    typer.Option(min=2, help="Embed at most so many videos; 3000 unless said.", show_default=False),
]


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            ("slicfast report runs/demo", "writes runs/demo/report.html"),
            ("slicfast report runs/demo --skip-embedding", "while it trains: curves and clusters alone"),
            ("slicfast report runs/demo --set data.store=data/demo-store -o demo.html", ""),
        )
    )(report)
    app.command(
        epilog=examples(
            ("slicfast figures runs/demo -o figures", "each as PNG and PDF"),
            ("slicfast figures runs/demo -o figures --pair a.mp4 b.mp4", "and two videos over time"),
        )
    )(figures)


def report(
    run: RunArgument,
    overrides: SetOption = None,
    query: QueryOption = None,
    gallery: GalleryOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Page to write; RUN/report.html unless said.",
            show_default=False,
        ),
    ] = None,
    max_videos: MaxOption = None,
    skip_embedding: Annotated[
        bool, typer.Option("--skip-embedding", help="Leave out what needs the network: neighbours and map.")
    ] = False,
) -> None:
    """Write a run as one HTML page: results, curves, clusters, neighbours, a map of the embedding.

    The page opens from a file and needs nothing beside it. A run that is unfinished, without labels or
    without clustering gives a page of what there is.
    """
    from slicfast.config import Config

    Config.load(None, overrides or ())  # wrong keys are found before anything is loaded

    from slicfast.report.page import write_report
    from slicfast.report.view import MAX_VIDEOS

    written = write_report(
        run,
        output,
        query=query,
        gallery=gallery,
        overrides=overrides or (),
        max_videos=max_videos or MAX_VIDEOS,
        skip_embedding=skip_embedding,
    )
    say(f"written to {written} ({written.stat().st_size / 1e6:.1f} MB); open it in a browser")


def figures(
    run: RunArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where they go; made if need be.")
    ] = Path("figures"),
    overrides: SetOption = None,
    query: QueryOption = None,
    gallery: GalleryOption = None,
    max_videos: MaxOption = None,
    skip_embedding: Annotated[
        bool, typer.Option("--skip-embedding", help="Curves, cluster sizes and results alone.")
    ] = False,
    width: Annotated[float, typer.Option(help="Inches; a column of a paper unless said.")] = 3.3,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Also how alike two videos are over time: files, or ids of the store.",
            show_default=False,
        ),
    ] = None,
    hop: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Frames between two windows of a pair; a quarter clip unless said.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a run's figures for papers: curves, clusters, recall, map, confusion, as PNG and as PDF.

    What the run has no data for is named and left out.
    """
    from slicfast.config import Config

    Config.load(None, overrides or ())

    from slicfast.report.paper import write_figures
    from slicfast.report.view import MAX_VIDEOS

    found = write_figures(
        run,
        output,
        query=query,
        gallery=gallery,
        overrides=overrides or (),
        max_videos=max_videos or MAX_VIDEOS,
        skip_embedding=skip_embedding,
        width_in=width,
        pair=pair,
        hop=hop,
    )
    for name, reason in found.missing.items():
        say(f"without {name}: {reason}")
    say(f"{output}: {len(found.written) // 2} figures, each as PNG and PDF")
