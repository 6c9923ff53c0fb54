"""Draw the README's tables from the JSON under benchmarks/results; no figure there is typed.

python benchmarks/tables.py            write them into README.md
python benchmarks/tables.py --check    exit 1 where README.md is not what the results say
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slicfast.bench import cluster, loader, step
from slicfast.evaluation.run import ROW_NAMES

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))  # for benchmarks.peers, also where this file is run by its path


def newest(kind: str) -> Path:
    """The newest result of a kind; names end in <date>-<kind>.json."""
    found = sorted(RESULTS.glob(f"*-????-??-??-{kind}.json"), key=lambda path: path.name[-len(kind) - 16 :])
    if not found:
        sys.exit(f"no result of kind '{kind}' in {RESULTS}")
    return found[-1]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def bench(module: Any) -> Callable[[dict[str, Any]], str]:
    return lambda results: markdown(module.COLUMNS, module.table_rows(results))


def demo(results: dict[str, Any]) -> str:
    ks = list(next(iter(results["table"].values())))
    columns = [f"{results['num_query']} test videos look among {results['num_gallery']}"]
    rows = [
        [ROW_NAMES[name], *(f"{100 * recall[k]:.1f} %" for k in ks)]
        for name, recall in results["table"].items()
    ]
    return markdown([*columns, *(f"R@{k}" for k in ks)], rows)


def demo_seeds(results: dict[str, Any]) -> str:
    rows = [
        [ROW_NAMES[name], f"{100 * figure['mean']:.1f} %", f"{100 * figure['deviation']:.1f}"]
        + [f"{100 * value:.1f}" for value in figure["values"]]
        for name, figure in results["recall_at_1"].items()
    ]
    return markdown(["", "mean", "deviation", *(f"seed {seed}" for seed in results["seeds"])], rows)


def peers(results: dict[str, Any]) -> str:
    from benchmarks.peers import side_by_side

    return markdown(side_by_side.COLUMNS, side_by_side.table_rows(results))


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": demo,
    "demo-seeds": demo_seeds,
    "loader": bench(loader),
    "cluster": bench(cluster),
    "step": bench(step),
    "peers": peers,
}


def source(path: Path, content: dict[str, Any]) -> str:
    machine = content["machine"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    return f"[{path.name}](benchmarks/results/{path.name}): {where}, torch {machine['torch']}"


def drawn(readme: str) -> str:
    """The README with every marked table drawn anew."""

    def table(match: re.Match[str]) -> str:
        kind = match[1]
        path = newest(kind)
        content = json.loads(path.read_text(encoding="utf-8"))
        body = TABLES[kind](content["results"])
        return f"<!-- table: {kind} -->\n{body}\n\n{source(path, content)}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w-]+) -->.*?<!-- end -->", table, readme, flags=re.DOTALL)


def main() -> None:
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    new = drawn(text)
    if "--check" in sys.argv[1:]:
        if new != text:
            sys.exit("README.md does not say what benchmarks/results says; run python benchmarks/tables.py")
        return
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
