"""`slicfast eval ...`: what a trained encoder is worth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from slicfast.cli.output import OutputOption, SetOption, examples, say

RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|CHECKPOINT", help="Run folder (its best checkpoint, else its last) or a checkpoint."
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(help="Another clip store than the one trained on (transfer).", show_default=False),
]
QueryOption = Annotated[
    str | None,
    typer.Option(help="Split whose videos are asked about; the test split unless said.", show_default=False),
]
GalleryOption = Annotated[
    str | None,
    typer.Option(
        help="Split in which they look, on which classifiers train; the training split unless said.",
        show_default=False,
    ),
]
PerClassOption = Annotated[bool, typer.Option("--per-class", help="Also print a table of the classes.")]
FastOption = Annotated[
    bool,
    typer.Option("--fast", help="Leave out CoCLR's probe and its ten crops, the slow part."),
]


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
    group.command(
        epilog=examples(
            ("slicfast eval linear runs/demo", ""),
            ("slicfast eval linear runs/k400 --store data/ucf101 --query test1 --gallery train1", "transfer"),
        )
    )(linear)
    group.command(epilog=examples(("slicfast eval knn runs/demo", "")))(knn)
    group.command(
        epilog=examples(
            ("slicfast eval finetune runs/demo --epochs 20", ""),
            ("torchrun --nproc-per-node=8 -m slicfast eval finetune runs/ucf101 --query test1", "eight GPUs"),
        )
    )(finetune)
    group.command(
        "all",
        epilog=examples(
            ("slicfast eval all runs/demo", ""),
            ("slicfast eval all runs/ucf101 --query test1 --gallery train1 --fast", ""),
        ),
    )(everything)
    app.add_typer(group, name="eval")


def retrieval(
    run: RunArgument,
    overrides: SetOption = None,
    store: StoreOption = None,
    query: QueryOption = None,
    gallery: GalleryOption = None,
    iic_only: Annotated[
        bool, typer.Option("--iic-only", help="Leave out CoCLR's protocol, which looks at more clips.")
    ] = False,
    per_class: PerClassOption = False,
    output: OutputOption = None,
) -> None:
    """Find videos of the same class by their nearest neighbours, and print R@1 to R@50.

    By IIC's protocol (ten clips a video) and CoCLR's (windows every 7 frames), every video once, cosine, with
    95 % intervals. Beside the trained encoder stand the same network untrained, plain pictures, and chance.
    """
    values = _overrides(overrides)
    from slicfast.cli.evaluation_tables import print_per_class, print_retrieval, print_subject
    from slicfast.evaluation.run import evaluate_run

    report = evaluate_run(
        run,
        query=query,
        gallery=gallery,
        store=store,
        overrides=values,
        protocols=("iic",) if iic_only else ("iic", "coclr"),
        output=output,
    )
    print_subject(report.document)
    print_retrieval(report.document)
    if per_class:
        print_per_class(report.document)
    if output is not None:
        say(f"written to {output}")


def linear(
    run: RunArgument,
    overrides: SetOption = None,
    store: StoreOption = None,
    query: QueryOption = None,
    gallery: GalleryOption = None,
    fast: FastOption = False,
    per_class: PerClassOption = False,
    output: OutputOption = None,
) -> None:
    """Train linear classifiers on the frozen features of one split and test them on another.

    Ridge and logistic regression on each video's mean features, their strength chosen on held-out training
    videos; and CoCLR's probe: 150 epochs of Adam with dropout, tested on ten crops of every window.
    """
    document = _evaluate(run, ("linear",), overrides, store, query, gallery, output, train_probe=not fast)
    from slicfast.cli.evaluation_tables import print_linear, print_per_class, print_subject

    print_subject(document)
    print_linear(document)
    if per_class:
        print_per_class(document)


def knn(
    run: RunArgument,
    overrides: SetOption = None,
    store: StoreOption = None,
    query: QueryOption = None,
    gallery: GalleryOption = None,
    output: OutputOption = None,
) -> None:
    """Classify by the nearest of 1, 2, 5, 10 or all labelled videos a class (cosine, five draws)."""
    document = _evaluate(run, ("knn",), overrides, store, query, gallery, output)
    from slicfast.cli.evaluation_tables import print_knn, print_subject

    print_subject(document)
    print_knn(document)


def finetune(
    run: RunArgument,
    overrides: SetOption = None,
    store: StoreOption = None,
    query: QueryOption = None,
    gallery: GalleryOption = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Instead of CoCLR's 150.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Of the fine-tuning; RUN/finetune unless said.", show_default=False)
    ] = None,
    per_class: PerClassOption = False,
) -> None:
    """Train the whole network with labels by CoCLR's recipe and test it on ten crops of every window.

    A run of its own in RUN/finetune: Ctrl-C saves and stops, the same command goes on. The result is written
    to evaluation.json there, and `slicfast eval all` shows it beside the rest.
    """
    values = _overrides([*(overrides or ()), *([f"probe.epochs={epochs}"] if epochs else ())])
    from slicfast.cli.evaluation_tables import print_finetuning, print_per_class, print_subject
    from slicfast.training.finetune import finetune as start

    result = start(run, folder=folder, query=query, gallery=gallery, store=store, overrides=values)
    if os.environ.get("RANK", "0") != "0":
        return
    if result.evaluation is None:
        assert result.stopped_by is not None
        say(f"stopped by {result.stopped_by.name}, all of it saved; the same command goes on")
        raise typer.Exit(128 + result.stopped_by)
    print_subject(result.evaluation)
    print_finetuning(result.evaluation)
    if per_class:
        print_per_class(result.evaluation)
    say(f"written to {result.folder / 'evaluation.json'}")


def everything(
    run: RunArgument,
    overrides: SetOption = None,
    store: StoreOption = None,
    query: QueryOption = None,
    gallery: GalleryOption = None,
    fast: FastOption = False,
    per_class: PerClassOption = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Instead of RUN/evaluation.json.", show_default=False
        ),
    ] = None,
) -> None:
    """Evaluate by every protocol on frozen features; print one table and write RUN/evaluation.json.

    Each view of a clip is decoded once for all protocols. Fine-tuning, where `slicfast eval finetune` has
    done it for this checkpoint, is shown beside.
    """
    values = _overrides(overrides)
    from slicfast.cli.evaluation_tables import print_per_class, print_subject, print_summary
    from slicfast.evaluation.run import evaluate_all

    document, written = evaluate_all(
        run,
        query=query,
        gallery=gallery,
        store=store,
        overrides=values,
        train_probe=not fast,
        output=output,
    )
    print_subject(document)
    print_summary(document)
    if per_class:
        print_per_class(document)
    say(f"written to {written}")


def _evaluate(
    run: Path,
    sections: tuple[str, ...],
    overrides: list[str] | None,
    store: Path | None,
    query: str | None,
    gallery: str | None,
    output: Path | None,
    *,
    train_probe: bool = True,
) -> dict[str, Any]:
    values = _overrides(overrides)
    from slicfast.evaluation.run import evaluate

    document = evaluate(
        run,
        sections=sections,
        train_probe=train_probe,
        query=query,
        gallery=gallery,
        store=store,
        overrides=values,
        output=output,
    )
    if output is not None:
        say(f"written to {output}")
    return document


def _overrides(overrides: list[str] | None) -> dict[str, Any]:
    """Wrong keys are found before anything is loaded."""
    from slicfast.config import Config
    from slicfast.overrides import parse_overrides

    Config.load(None, overrides or ())
    return parse_overrides(overrides or ())
