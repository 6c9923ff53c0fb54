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
