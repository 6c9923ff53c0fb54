"""The tree of commands; each group has a file of its own, and imports what is heavy only when it runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from slicfast.cli import (
    bench,
    compare,
    convert,
    data,
    evaluate,
    machine,
    profile,
    report,
    store,
    synth,
    train,
    use,
)
from slicfast.cli.output import examples, set_up_logging

ORDER = (
    "synth",
    "prepare",
    "store",
    "train",
    "eval",
    "embed",
    "search",
    "report",
    "figures",
    "export",
    "convert",
    "compare",
    "bench",
    "profile",
    "doctor",
    "version",
)


class _InOrder(TyperGroup):
    """Commands in the order in which a newcomer needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    cls=_InOrder,
    name="slicfast",
    help="Train video encoders without labels: SLIC, fed as fast as the machine allows.",
    epilog=examples(
        ("slicfast synth data/demo", "write small videos to try it on"),
        ("slicfast prepare data/demo data/demo-store", "make them fast to read"),
        ("slicfast train configs/demo.yaml", "train an encoder on them"),
        ("slicfast eval retrieval runs/demo", "see what it has learned"),
        ("slicfast report runs/demo", "look at the run in a browser"),
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        machine.version()
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Same as 'slicfast version'.")
    ] = False,
) -> None:
    set_up_logging()


synth.register(app)
data.register(app)
store.register(app)
train.register(app)
evaluate.register(app)
use.register(app)
report.register(app)
convert.register(app)
compare.register(app)
bench.register(app)
profile.register(app)
machine.register(app)
