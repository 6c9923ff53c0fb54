"""`slicfast compare`: runs side by side, in columns that fit a terminal of 80."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slicfast.cli.output import examples, say

if TYPE_CHECKING:
    from slicfast.evaluation.compare import Comparison

CELL = 11  # characters of a run's column
GAP = 2
MAX_LABEL = 32
PERCENT = ("R@1", "top-1", "share")


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            ("slicfast compare runs/first runs/second", ""), ("slicfast compare runs/* --json", "")
        )
    )(compare)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, finished or not.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
) -> None:
    """Tell runs apart: the keys in which their configurations differ, and their results side by side."""
    from slicfast.evaluation import compare as module

    comparison = module.compare_runs(runs)
    if as_json:
        say(module.as_json(comparison))
        return
    for line in report(comparison, shutil.get_terminal_size().columns):
        say(line)


def report(comparison: Comparison, width: int) -> Iterator[str]:
    """The lines: a legend, what differs, results; runs beyond the width go into further blocks."""
    names = [_letters(number) for number in range(len(comparison.runs))]
    for name, run in zip(names, comparison.runs, strict=True):
        yield f"{name}  {run.path}  ({run.state})"
        for file, reason in run.missing.items():
            yield f"   {file}: {reason}"
    results = [run.results for run in comparison.runs]
    labels = list(dict.fromkeys(label for values in results for label in values))
    yield from _table("configuration", names, comparison.config, width)
    if not comparison.config and len(names) > 1:
        yield "\nthe configurations do not differ"
    yield from _table("results", names, {key: [v.get(key) for v in results] for key in labels}, width)
    with_evaluation = [name for name, run in zip(names, comparison.runs, strict=True) if run.evaluated]
    if comparison.evaluated:
        yield "\nevaluated in different ways, so that these results do not compare:"
        yield from _table("evaluation.json", with_evaluation, comparison.evaluated, width)


def _table(title: str, names: Sequence[str], rows: dict[str, list[Any]], width: int) -> Iterator[str]:
    """A table with a column a run, broken into blocks that fit."""
    if not rows:
        return
    label_width = min(MAX_LABEL, max(len(title), *map(len, rows)))
    at_once = max(1, (width - label_width) // (CELL + GAP))
    for first in range(0, len(names), at_once):
        part = slice(first, first + at_once)
        yield ""
        yield _line(title, names[part], label_width)
        for label, values in rows.items():
            yield _line(label, [_shown(label, value) for value in values[part]], label_width)


def _line(label: str, cells: Sequence[str], label_width: int) -> str:
    shown = "".join(" " * GAP + f"{_cut(cell, CELL):>{CELL}}" for cell in cells)
    return f"{_cut(label, label_width):<{label_width}}{shown}".rstrip()


def _cut(text: str, width: int) -> str:
    """The end of what is too long: of keys and paths it says most."""
    return text if len(text) <= width else "…" + text[-(width - 1) :]


def _shown(label: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if any(mark in label for mark in PERCENT):
            return f"{100 * value:.1f} %"
        return f"{value:.4g}"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def _letters(number: int) -> str:
    """A, B, ... Z, AA, AB ..."""
    name = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
