"""`slicfast convert`: checkpoints of SLIC's authors, torchvision and 3D-ResNets-PyTorch, read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from slicfast.cli.output import examples, say


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            ("slicfast convert slic.pth.tar encoder.pt", "the authors' checkpoint"),
            ("slicfast convert runs/ucf101 ours.pth.tar --to slic", "and the way back"),
            ("slicfast convert r3d50_K_200ep.pth encoder.pt", "3D-ResNets-PyTorch's"),
            ("slicfast convert runs/ucf101 raw.pt --raw", "without the average of its weights"),
        )
    )(convert)


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="Run folder, or a checkpoint of slicfast or one of the others."),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    to: Annotated[
        Literal["slicfast", "slic", "torchvision", "3d-resnets"],
        typer.Option("--to", help="Whose form to write: slicfast's, SLIC's authors', torchvision's, Hara's."),
    ] = "slicfast",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What a file does not say, such as model.max_pool=false.",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(help="Put before every name, such as 'module.' (DataParallel's).", show_default=False),
    ] = "",
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Of a run that averaged its weights (ema.decay), those of its last step."),
    ] = False,
) -> None:
    """Read a checkpoint of others, or write one for their programs; tensors stay as they are.

    Every command that takes a checkpoint reads these files as they are, too.
    """
    from slicfast.export.convert import convert as write

    made = write(source, output, to, overrides=overrides or [], prefix=prefix, use_ema=not raw)
    size = f"{made.num_parameters / 1e6:.2f} M parameters"
    say(f"{output}: {made.model}, {size}, from a {made.source} checkpoint")
    for note in made.notes:
        say(f"  {note}")
