"""Does each part of the method help? Conditions of training on drawn videos, over seeds of data and training.

python -m benchmarks.evidence --output benchmarks/results/cpu-2core-2026-11-25-evidence.json

Every finished run is kept in the work folder: a second call, after a stop or with more seeds, does only what
is missing. Two single-threaded processes side by side use two cores best. All conditions of a regime see the
same number of clips; R@1 of a run is that of its last checkpoint, so no choice is made by looking at it.
What was chosen (configs/evidence.yaml, the data's factors) was chosen on validation videos of another seed,
and which run others branch from on those of seeds 0 and 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.evidence_conditions import BASE, CONDITIONS, REGIMES, Regime
from benchmarks.evidence_figure import save_figure
from benchmarks.evidence_runs import Task, make_data, run_task
from benchmarks.evidence_summary import COLUMNS, summarise, table_rows
from slicfast.bench.harness import write_result
from slicfast.config import Config

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "evidence.yaml"


def all_tasks(work: Path, base: Config, regimes: Sequence[Regime], seeds: Sequence[int]) -> list[Task]:
    for regime in regimes:
        assert BASE in regime.conditions, f"{regime.name} lacks {BASE}, from which others branch"
    return [
        Task(work, base, regime, condition, seed)
        for seed in seeds
        for regime in regimes
        for condition in regime.conditions
    ]


def run_all(tasks: Sequence[Task], num_processes: int) -> bool:
    """Do what is missing; False where something was stopped. 0 processes: all of it in this one."""
    data = {task.data: task for task in tasks if not task.result.exists()}
    missing = [task for task in tasks if not task.result.exists()]
    # BASE first: others wait for its checkpoint.
    fresh = sorted(
        (task for task in missing if not task.is_branched), key=lambda task: task.condition != BASE
    )
    branched = [task for task in missing if task.is_branched]
    started, done = time.monotonic(), 0
    for work, stage in ((make_data, list(data.values())), (run_task, fresh), (run_task, branched)):
        for task, answer in _each(work, stage, num_processes):
            if answer is False:
                return False
            if work is run_task:
                done += 1
                minutes = (time.monotonic() - started) / 60
                name = f"{task.regime.name}, seed {task.seed}, {CONDITIONS[task.condition].title}"
                print(f"{done} of {len(missing)} runs, {minutes:.1f} min: {name}", flush=True)
    return True


def _each(
    work: Callable[[Task], Any], tasks: Sequence[Task], num_processes: int
) -> Iterator[tuple[Task, Any]]:
    if num_processes == 0:
        for task in tasks:
            yield task, work(task)
        return
    if not tasks:
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(work, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_runs(tasks: Sequence[Task]) -> dict[tuple[str, str, int], dict[str, Any]]:
    return {
        (task.regime.name, task.condition, task.seed): json.loads(task.result.read_text(encoding="utf-8"))
        for task in tasks
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON; the figure is written beside it")
    parser.add_argument("--work", type=Path, default=Path("data/evidence"), help="what is kept between calls")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    regimes = [REGIMES[name] for name in options.regimes]
    base = Config.load(options.config, options.overrides)
    tasks = all_tasks(options.work, base, regimes, options.seeds)
    try:
        whole = run_all(tasks, options.processes)
    except KeyboardInterrupt:
        whole = False
    if not whole:
        sys.exit("stopped; the same command does what is missing")
    results = summarise(regimes, options.seeds, read_runs(tasks))
    results["config"] = base.to_dict()
    write_result(options.output, "evidence", results)
    save_figure(results, options.output.with_suffix(".svg"))
    print("\n".join(" | ".join(row) for row in (COLUMNS, *table_rows(results))))


if __name__ == "__main__":  # processes are started afresh and import this file
    main()
