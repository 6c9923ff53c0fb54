"""`slicfast doctor` and `slicfast version`: what this machine has, and what would mend what it lacks."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slicfast import __version__
from slicfast.cli.output import OutputOption, SetOption, examples, say, table, write_json
from slicfast.errors import ConfigError

if TYPE_CHECKING:
    from slicfast.checks import Check
    from slicfast.config import Config
    from slicfast.convolution_check import ConvolutionCheck

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "av", "opencv-python-headless", "scikit-learn")
DALI_BUILDS = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")


def register(app: typer.Typer) -> None:
    app.command(
        epilog=examples(
            ("slicfast doctor", ""),
            ("slicfast doctor --deep --config configs/ucf101_r3d18.yaml", "is bf16 right here?"),
        )
        + "\n\nExit code 0 where everything needed is there, 1 where something fails."
    )(doctor)
    app.command()(version)


def doctor(
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Also compare every convolution of a step in bf16 with float32, forward and backward;"
            " on a CPU at smaller sizes.",
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="YAML file whose step --deep looks at; the defaults unless given.",
            show_default=False,
        ),
    ] = None,
    overrides: SetOption = None,
    output: OutputOption = None,
) -> None:
    """Look at this machine, and say how to mend what is missing or broken.

    Nothing is taken at its word: a clip is decoded, a convolution computed and compared, each library loaded.
    """
    from slicfast.config import Config
    from slicfast.doctor import diagnose

    if not deep and (config is not None or overrides):
        raise ConfigError("--config and --set say which step --deep looks at; add --deep")
    settings = Config.load(config, overrides or ())
    checks = diagnose()
    details: dict[str, Any] = {}
    if deep:
        found = _look_deeper(settings)
        checks.append(found.check())
        details = {"convolutions": found.to_dict()}
    _show(checks)
    if output is not None:
        shown = {check.name: {"status": check.status, "found": check.found} for check in checks}
        write_json(output, {name: values | details.get(name, {}) for name, values in shown.items()})
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        say(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
        raise typer.Exit(1)
    say("everything that slicfast needs is here")


def _look_deeper(config: Config) -> ConvolutionCheck:
    from slicfast.convolution_check import COLUMNS, check_convolutions
    from slicfast.device import resolve_device

    device = resolve_device(config.train.device)
    found = check_convolutions(config, device)
    table(
        f"bf16 beside float32 on {device}, beyond rounding, in standard deviations ({found.seconds:.0f} s)",
        COLUMNS,
        found.rows(),
    )
    return found


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
