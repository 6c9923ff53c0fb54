"""A suite's stages: each in a process of its own, within a budget of time, all that they find in one file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicfast.bench.harness import machine
from slicfast.device import resolve_device
from slicfast.records import write_text

BUDGET_S = 18 * 60  # of one call; the stages' limits are caps and come to more
MIN_STAGE_S = 60  # a stage that would be cut shorter is not begun
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Context:
    """What a stage may use: the device, whether only the suite itself is tried, a folder for its files."""

    device: str
    quick: bool
    folder: Path

    def number(self, full: int, quick: int) -> int:
        return quick if self.quick else full


Stage = Callable[[Context], Any]
STAGES: dict[str, tuple[Stage, int]] = {}  # name -> what it does, seconds it may take


def stage(limit_s: int) -> Callable[[Stage], Stage]:
    def register(run: Stage) -> Stage:
        STAGES[run.__name__] = (run, limit_s)
        return run

    return register


def shell(*command: str, timeout_s: int = 60, env: dict[str, str] | None = None) -> dict[str, Any]:
    """A command's exit code and the end of what it printed; never raises."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"command": " ".join(command), "error": str(error)}
    return {"command": " ".join(command), "exit": done.returncode, "output": done.stdout[-6000:]}


def run_one(name: str, context: Context, out: Path) -> None:
    """One stage in this process; its result goes to `out`."""
    resolve_device(context.device)  # what this machine's libraries must be told before their first use
    started = time.perf_counter()
    result = STAGES[name][0](context)
    seconds = round(time.perf_counter() - started, 1)
    write_text(out, json.dumps({"seconds": seconds, "machine": machine(), "result": result}, indent=1))


def run_all(script: str, names: list[str], context: Context, out: Path, budget_s: float) -> int:
    """The stages that `out` does not hold yet, as far as time goes; the number of those that failed."""
    ends = time.monotonic() + budget_s
    merged: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    failed = 0
    for name in names:
        if "result" in merged.get(name, {}):
            print(f"{name}: there already")
            continue
        left_s = int(ends - time.monotonic())
        if left_s < min(STAGES[name][1], MIN_STAGE_S):
            print(f"{name}: left for another call, {max(0, left_s)} s remain of the budget")
            continue
        part = context.folder / f"{name}.json"
        command = [sys.executable, script, str(part), "--only", name, "--folder", str(context.folder)]
        command += ["--device", context.device, *(["--quick"] if context.quick else [])]
        print(f"{name}: ...", flush=True)
        # Smallest sizes gain nothing from threads, which wait for one another on a busy machine.
        env = {"OMP_NUM_THREADS": "1"} if context.quick else None
        told = shell(*command, timeout_s=min(STAGES[name][1], left_s), env=env)
        if part.exists():
            merged[name] = json.loads(part.read_text(encoding="utf-8"))
            print(f"{name}: {merged[name]['seconds']} s", flush=True)
        else:
            merged[name] = {"failed": told}
            failed += 1
            print(f"{name}: FAILED\n{told.get('output', told.get('error', ''))[-2000:]}", flush=True)
        write_text(out, json.dumps(merged, indent=1) + "\n")
    return failed


def main(script: str, description: str | None, order: Sequence[str]) -> None:
    """The command line of a suite: the file that its stages are in, and their order."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stages", default=",".join(order), help="names, with commas between")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds of all stages together")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="smallest sizes: try the suite itself")
    parser.add_argument("--folder", type=Path, help="for the stages' files; a temporary one unless said")
    parser.add_argument("--only", choices=list(STAGES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.stages.split(",")
    if unknown := set(names) - set(STAGES):
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    with tempfile.TemporaryDirectory(prefix="slicfast-suite-") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        context = Context(given.device, given.quick, folder)
        if given.only:
            run_one(given.only, context, given.out)
        elif failed := run_all(script, names, context, given.out, given.budget):
            sys.exit(f"{failed} of {len(names)} stages failed; what they said is in {given.out}")
