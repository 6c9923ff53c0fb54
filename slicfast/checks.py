"""What a look at this machine comes to, and two things that every look needs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found and, where it is not well, what to do."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a table."""
    return str(error).strip().partition("\n")[0][:160]


def version_of(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
