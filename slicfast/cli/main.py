"""What happens around a command: its errors become one line and an exit code, here and nowhere else.

Exit codes: 0 done; 1 data, machine or run; 2 arguments and configuration; 130 interrupted. A bug keeps its
traceback, with a word on where to take it.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.exceptions import Abort, Exit, TyperException

from slicfast.cli.app import app
from slicfast.errors import SlicfastError

# What a user can mend about a file or a disk; any other OSError is a bug.
_FILE_ERRORS = {
    errno.ENOSPC: "no space left on the device; free some and run the same command again",
    errno.EFBIG: "the file would be larger than is allowed here; see 'ulimit -f'",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
    errno.EACCES: "permission denied; choose a place that you may use",
    errno.EPERM: "not permitted; choose a place that you may use",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "too many open files; raise the limit with 'ulimit -n 65536'",
}


def main() -> None:
    """Entry point of the `slicfast` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; what went wrong is one line on standard error."""
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
        return code
    except Exit as end:
        return end.exit_code
    except TyperException as error:
        if not error.format_message():  # a group without its command has shown its help
            return error.exit_code
        return _fail(_usage_message(error, arguments), error.exit_code)
    except SlicfastError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, Abort) as stop:
        return _fail(f"interrupted{f'; {stop}' if str(stop) else ''}", 130, label="")
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to be said, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        message = _outside_cause(error)
        if message is not None:
            return _fail(message, 1)
        traceback.print_exc()
        return _fail(
            f"{type(error).__name__} is a bug in slicfast; please report it with the lines above and the"
            " output of 'slicfast version'",
            1,
        )


def _invoke(arguments: Sequence[str]) -> int:
    # Not Typer's own main: it would turn Ctrl-C and usage errors into its own words.
    command = typer.main.get_command(app)
    with command.make_context("slicfast", list(arguments)) as context:
        code = command.invoke(context)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int, label: str = "error: ") -> int:
    rank = os.environ.get("RANK", "0")
    who = "slicfast" if rank == "0" else f"slicfast (rank {rank})"
    print(f"{who}: {label}{message}", file=sys.stderr, flush=True)
    return code


def _usage_message(error: TyperException, arguments: Sequence[str]) -> str:
    """One line: what was wrong, the nearest that would be right, and where the help is."""
    message = error.message if getattr(error, "possibilities", None) else error.format_message()
    message = (
        " ".join(message.split())
        .rstrip(".")
        .replace(": Input should", ": it should")
        .replace(": Value error, ", ": ")
        .replace("argument(s)", "argument")
    )
    possibilities = getattr(error, "possibilities", None)
    if possibilities:
        message += f"; did you mean {' or '.join(sorted(possibilities))}?"
    return f"{message[:1].lower()}{message[1:]} (see '{_command_path(arguments)} --help')"


def _command_path(arguments: Sequence[str]) -> str:
    """The command that was meant, as far as it can be made out."""
    path = "slicfast"
    command: Any = typer.main.get_command(app)
    for argument in arguments:
        command = getattr(command, "commands", {}).get(argument)
        if command is None:
            break
        path += f" {argument}"
    return path


def _outside_cause(error: Exception) -> str | None:
    """A line for what a disk, a missing library or full memory did; None for a bug."""
    if isinstance(error, OSError) and error.errno in _FILE_ERRORS:
        about = f"{error.filename}: " if error.filename else ""
        return f"{about}{_FILE_ERRORS[error.errno]}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("slicfast"):
        return f"the library '{error.name}' is not installed; run 'make install', or see 'slicfast doctor'"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, named so that torch need not be imported
        return "the GPU's memory is full; lower train.batch_size or raise train.accumulation_steps"
    if isinstance(error, MemoryError):
        return "this machine's memory is full; lower train.batch_size or data.prefetch"
    return None
