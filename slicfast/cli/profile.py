"""`slicfast profile`: where the time of a training step goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicfast.cli.output import OutputOption, SetOption, examples, say, table, write_json


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            ("slicfast profile configs/demo.yaml", "then open the trace at ui.perfetto.dev"),
            ("slicfast profile configs/ucf101_r3d18.yaml --tool nsys --out profiles/first", "on a GPU"),
        )
    )(profile)


def profile(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run to look into.")],
    overrides: SetOption = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the trace or report goes.")] = Path(
        "profile"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Steps to look into.")] = 10,
    warmup: Annotated[int, typer.Option(min=0, help="Steps before these.")] = 5,
    tool: Annotated[
        str,
        typer.Option(help="auto, torch, nsys or ncu; auto: nsys where it is installed and there is a GPU."),
    ] = "auto",
    clustering: Annotated[
        bool, typer.Option("--clustering", help="Let the run cluster first, as configured.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Train some steps under a profiler: what the host and the GPU spend their time on.

    Prints the time a step by span, the ten dearest kernels (operators, on a CPU) and the idle share. The
    trace of torch's profiler opens in Perfetto, Nsight's reports in Nsight.
    """
    from slicfast.config import Config

    settings = Config.load(config, overrides or ())

    from slicfast.bench.profile import KERNEL_COLUMNS, WINDOW_COLUMNS, kernel_rows, span_rows
    from slicfast.bench.profile import profile as run

    found = run(settings, out, tool=tool, num_steps=steps, num_warmup=warmup, with_clustering=clustering)
    if found.summary is not None:
        table(
            f"{found.num_steps} steps, {found.summary.window_ms / found.num_steps:.1f} ms each",
            WINDOW_COLUMNS,
            span_rows(found),
        )
        table(
            "Kernels" if found.summary.on_gpu else "Operators, without what they call",
            KERNEL_COLUMNS,
            kernel_rows(found),
        )
        idle = f"{100 * found.summary.idle_share:.1f} %"
        what = "the GPU was idle" if found.summary.on_gpu else "the step waited for clips"
        say(f"{what} for {idle} of the time")
    say(f"{'open it at ui.perfetto.dev' if found.tool == 'torch' else 'open it in Nsight'}: {found.file}")
    if output is not None:
        write_json(output, found.to_dict())
