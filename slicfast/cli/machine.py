"""`slicfast doctor` and `slicfast version`: what this machine has, and what would mend what it lacks."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

import typer

from slicfast import __version__
from slicfast.cli.output import OutputOption, say, write_json

if TYPE_CHECKING:
    from slicfast.doctor import Check

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "av", "opencv-python-headless", "scikit-learn")
DALI_BUILDS = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")


def register(app: typer.Typer) -> None:
    app.command(epilog="Exit code 0 where everything needed is there, 1 where something fails.")(doctor)
    app.command()(version)


def doctor(output: OutputOption = None) -> None:
    """Look at this machine, and say how to mend what is missing or broken.

    Nothing is taken at its word: a clip is decoded, a convolution computed and compared, each library loaded.
    """
    from slicfast.doctor import diagnose

    checks = diagnose()
    _show(checks)
    if output is not None:
        write_json(output, {check.name: {"status": check.status, "found": check.found} for check in checks})
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        say(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
        raise typer.Exit(1)
    say("everything that slicfast needs is here")


def _show(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    made = Table()
    for column in ("check", "", "found", "what to do"):
        made.add_column(column, overflow="fold")
    for check in checks:
        made.add_row(
            check.name, Text(check.status, style=styles[check.status]), Text(check.found), Text(check.advice)
        )
    Console(highlight=False).print(made)


def version() -> None:
    """Print the versions of slicfast and of what it stands on."""
    say(f"slicfast {__version__}")
    say(f"python {platform.python_version()} on {platform.platform()}")
    for name in (*LIBRARIES, *DALI_BUILDS):
        found = installed_version(name)
        if found is not None or name not in DALI_BUILDS:
            say(f"{name} {found or 'not installed'}")


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
