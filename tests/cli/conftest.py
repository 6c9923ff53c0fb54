"""The command line run in this process, errors and exit code included."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from slicfast.cli import run


@dataclass(frozen=True)
class Finished:
    """What a command left behind: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line of an error; anything more is a fault."""
        assert self.err.count("\n") == 1, self.err
        return self.err.strip()


@pytest.fixture
def slicfast(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Finished]]:
    """slicfast("train", path, ...) -> Finished."""
    logger = logging.getLogger("slicfast")
    handlers, level = list(logger.handlers), logger.level
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("RANK", raising=False)

    def call(*arguments: object) -> Finished:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Finished(code, *capsys.readouterr())

    yield call
    logger.handlers[:] = handlers
    logger.setLevel(level)
