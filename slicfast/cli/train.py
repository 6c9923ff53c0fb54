"""`slicfast train`: one run, on one process or as a rank under torchrun."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from slicfast.cli.output import SetOption, examples, say


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            ("slicfast train configs/demo.yaml", ""),
            ("slicfast train configs/demo.yaml --resume auto", "after a stop"),
            ("slicfast train configs/ucf101_r3d18.yaml --set data.store=data/ucf101 --run runs/first", ""),
            ("torchrun --nproc-per-node=2 -m slicfast train configs/ucf101_r3d18.yaml", "two GPUs"),
        )
    )(train)


def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML file; what it leaves out keeps its default.")
    ],
    overrides: SetOption = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder; runs/ and the configuration's name unless said.", show_default=False),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|PATH",
            help="Go on with the run in the run folder where there is one (auto), or from a checkpoint.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Take one step, write nothing.")] = False,
    max_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Save and stop after so many steps in all.", show_default=False),
    ] = None,
    profile_steps: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST",
            help="Let a profiler look into these steps: Nsight on a GPU (cudaProfilerStart and -Stop),"
            " torch's profiler on a CPU, which writes a trace into the run folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train an encoder on a clip store.

    The run folder holds the whole configuration, metrics.jsonl, checkpoints, cluster assignments and a log.
    Ctrl-C saves a checkpoint and stops; a resumed run equals an unbroken one.
    """
    from slicfast.config import Config

    settings = Config.load(config, overrides or ())
    folder = run if run is not None else Path("runs") / config.stem

    # torch only once the configuration is known to be right
    from slicfast.device import resolve_device
    from slicfast.profiling import Window
    from slicfast.training.loop import train as start

    window = None
    if profile_steps is not None:
        window = Window.parse(profile_steps)
        if resolve_device(settings.train.device).type == "cpu":
            window = replace(window, trace=folder / f"trace-{window.first}-{window.last}.json.gz")
    result = start(settings, folder, resume=resume, dry_run=dry_run, max_steps=max_steps, window=window)
    if os.environ.get("RANK", "0") != "0":
        return
    if result.stopped_by is not None:
        say(
            f"stopped by {result.stopped_by.name} at step {result.global_step}, all of it saved; go on with:"
            f" slicfast train {config} --run {folder} --resume auto"
        )
        raise typer.Exit(128 + result.stopped_by)
    if dry_run:
        say("one step taken, nothing written: the configuration, the store and the model fit together")
        return
    say(f"{folder}: {result.global_step} steps done")
    say(f"next: slicfast eval retrieval {folder}")
