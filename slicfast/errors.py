"""Errors a user can cause and mend: one line each, saying what was found, expected, and what to do.

The command line prints the message and exits with `exit_code`; anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SlicfastError(Exception):
    """Base of every error that is the input's or the machine's fault, not the program's."""

    exit_code = 1


class ConfigError(SlicfastError):
    """Wrong argument, configuration file, key or value."""

    exit_code = 2


class DataError(SlicfastError):
    """Videos, lists or a clip store that cannot be used."""


class MachineError(SlicfastError):
    """Something this machine lacks: a GPU, a library, space."""


class RunError(SlicfastError):
    """A run that cannot start, go on or be resumed."""


def one_of(what: str, got: object, allowed: Iterable[str]) -> str:
    """Message for a value outside a fixed set, naming the nearest allowed one."""
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(got), names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{what} must be one of {', '.join(names)}; got '{got}'{hint}"
