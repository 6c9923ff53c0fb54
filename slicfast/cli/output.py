"""What commands print: tables on standard output, log lines on standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the configuration, such as optim.lr=0.05. May be repeated.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Also write the result there as JSON.", show_default=False
    ),
]


def examples(*lines: tuple[str, str]) -> str:
    """The end of a help page: commands to copy, each with what it does."""
    shown = [f"[bold]{command}[/]{f'  [dim]{what}[/]' if what else ''}" for command, what in lines]
    return "\n\n".join([f"Example{'s' if len(lines) > 1 else ''}:", *shown])


class _Handler(logging.Handler):
    """Log records as plain lines on whatever standard error is now: a live bar puts itself in between."""

    def emit(self, record: logging.LogRecord) -> None:
        label = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        sys.stderr.write(f"{label}{self.format(record)}\n")
        sys.stderr.flush()


def set_up_logging() -> None:
    """slicfast's log on standard error; of several ranks, the first one's and the others' warnings."""
    logger = logging.getLogger("slicfast")
    if not any(isinstance(handler, _Handler) for handler in logger.handlers):
        logger.addHandler(_Handler())
    logger.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)


def say(line: str) -> None:
    """A line on standard output."""
    sys.stdout.write(f"{line}\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output: the first column to the left, figures to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table()
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place == 0 else "right")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)  # a log or a pipe has no edge to wrap at
    console.print(Text(title, style="bold"))
    console.print(made)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all. Raises MachineError where it cannot be written."""
    from slicfast.records import write_text

    write_text(path, json.dumps(values, indent=2) + "\n")
    say(f"written to {path}")
