"""`slicfast eval ...`: what a trained encoder is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicfast.cli.output import OutputOption, SetOption, examples, say, table


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Measure what a trained encoder is worth.", no_args_is_help=True, rich_markup_mode="rich"
    )
    group.command(
        epilog=examples(
            ("slicfast eval retrieval runs/demo", ""),
            ("slicfast eval retrieval runs/ucf101/checkpoints/last.pt --query test1 --gallery train1", ""),
        )
    )(retrieval)
    app.add_typer(group, name="eval")


def retrieval(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|CHECKPOINT", help="Run folder (its best checkpoint, else its last) or a checkpoint."
        ),
    ],
    overrides: SetOption = None,
    query: Annotated[
        str | None,
        typer.Option(help="Split whose videos ask; the test split unless said.", show_default=False),
    ] = None,
    gallery: Annotated[
        str | None,
        typer.Option(help="Split in which they look; the training split unless said.", show_default=False),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Find videos of the same class by their nearest neighbours, and print R@1 to R@50.

    IIC's protocol: ten clips a video, every video once, cosine. Beside the trained encoder stand the same
    network untrained, plain pictures, and chance.
    """
    from slicfast.config import Config
    from slicfast.overrides import parse_overrides

    Config.load(None, overrides or ())  # wrong keys are found before anything is loaded

    from slicfast.evaluation.run import ROW_NAMES, evaluate_run

    report = evaluate_run(
        run, query=query, gallery=gallery, overrides=parse_overrides(overrides or ()), output=output
    )
    ks = sorted({k for recall in report.table.values() for k in recall})
    table(
        f"{report.checkpoint}, epoch {report.epoch}: {report.num_query} videos of {report.query} look among"
        f" {report.num_gallery} of {report.gallery}",
        ("share that finds its class", *(f"R@{k}" for k in ks)),
        [
            (ROW_NAMES.get(name, name), *(f"{100 * recall[k]:.1f} %" for k in ks))
            for name, recall in report.table.items()
        ],
    )
    if output is not None:
        say(f"written to {output}")
