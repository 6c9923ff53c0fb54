"""The command line: `slicfast`, or `python -m slicfast` (which is also what torchrun starts)."""

from slicfast.cli.main import main, run

__all__ = ["main", "run"]
