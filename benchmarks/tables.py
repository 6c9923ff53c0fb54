"""Draw the tables of README.md and docs/ from the JSON under benchmarks/results; no figure there is typed.

python benchmarks/tables.py            write them into the pages
python benchmarks/tables.py --check    exit 1 where a page is not what the results say
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slicfast.bench import cluster, loader, sources, step
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


def flow(results: dict[str, Any]) -> str:
    exactness = [
        [
            f"{row['preset']}, {row['pictures']}",
            f"{row['endpoint_error_px']:.2f} px",
            f"{row['error_of_u_levels']:.1f}",
            f"{row['cpu_ms']:.2f}",
        ]
        for row in results["exactness"]
    ]
    cost = [
        [row["content"], f"{row['cpu_s_an_hour']:.0f}", f"{row['bytes_a_picture']}"]
        for row in results["cost"]
    ]
    columns = ["DIS preset, pictures", "error at 240 rows", "error of u, levels", "CPU ms a pair"]
    of_an_hour = ["stored, of 320 x 240 film at 25 pictures a second", "CPU s an hour", "bytes a picture"]
    return f"{markdown(columns, exactness)}\n\n{markdown(of_an_hour, cost)}"


def fuzz_prepare(results: dict[str, Any]) -> str:
    columns = ("stored", "stored damaged", "left out", "given up")
    outcomes = dict(results["outcomes"])
    total = outcomes.pop("all")
    rows = [[name, *(f"{counts.get(column, 0)}" for column in columns)] for name, counts in outcomes.items()]
    return markdown(
        ["damaged copies of", *columns], [*rows, ["all", *(f"{total.get(c, 0)}" for c in columns)]]
    )


def store_reading(results: dict[str, Any]) -> str:
    rows = [
        [way, f"{found['median']:.0f} ({found['quartiles'][0]:.0f}-{found['quartiles'][1]:.0f})"]
        for way, found in results["cpu_us_a_clip"].items()
    ]
    what = f"{results['pictures_a_clip']} pictures of {results['bytes_a_picture']} bytes, checksums included"
    return markdown([what, "CPU us a clip"], rows)


def validation_stall(results: dict[str, Any]) -> str:
    rows = [
        [
            way,
            f"{found['median_ms']:.1f}",
            " - ".join(f"{q:.1f}" for q in found["quartiles_ms"]),
            str(found["num"]),
        ]
        for way, found in results["ways"].items()
    ]
    first = f"during a validation of {results['validation_seconds']:.1f} s"
    columns = [first, f"ms until {results['clips_a_batch']} clips are there", "middle half", "validations"]
    return markdown(columns, rows)


def codecs(results: dict[str, Any]) -> str:
    from benchmarks import codecs as module

    return markdown(module.COLUMNS, module.table_rows(results))


def large_store(results: dict[str, Any]) -> str:
    steps = [
        [name, f"{found['cpu_seconds']:.2f}", f"{found['added_mb']:.0f}"]
        for name, found in results.items()
        if isinstance(found, dict) and "cpu_seconds" in found
    ]
    memory = results["memory_mb"]
    columns = [f"{results['num_videos']:,} videos, {results['num_frames']:,} pictures", "CPU s", "MB added"]
    return markdown(
        columns, [*steps, ["all of it", "", f"{memory['all of it']:.0f} (peak {memory['peak']:.0f})"]]
    )


def colour(results: dict[str, Any]) -> str:
    from benchmarks import colour as module

    return markdown(module.COLUMNS, module.table_rows(results))


def peers_made(results: dict[str, Any]) -> str:
    from benchmarks.peers import side_by_side

    return markdown(side_by_side.MADE_COLUMNS, side_by_side.made_rows(results))


def peers_curves(results: dict[str, Any]) -> str:
    from benchmarks.peers import curves

    return markdown(curves.columns(results), curves.table_rows(results))


def search(results: dict[str, Any]) -> str:
    rows = [
        [
            str(each["queries"]),
            f"{each['cpu_ms'] / 1e3:.2f}",
            f"{each['wall_ms'] / 1e3:.2f}",
            f"{each['memory_mb']}",
        ]
        for each in results["searches"]
    ]
    what = f"queries, {results['rows']:,} x {results['dim']}, k = {results['k']}"
    return markdown([what, "CPU s", "wall s", "MiB of memory"], rows)


def profile(results: dict[str, Any]) -> str:
    shown = ("forward", "backward", "optimizer", "step")
    rows = [
        [
            f"optim.fused={str(variant['fused']).lower()}",
            f"{variant['operators_in_optimizer']:.0f}",
            *(f"{variant['ms_a_step'][span]:.1f}" for span in shown),
        ]
        for variant in results["variants"]
    ]
    columns = ["", "operators in the optimizer, a step", *(f"{span}, ms" for span in shown)]
    return markdown(columns, rows)


def evidence(results: dict[str, Any]) -> str:
    from benchmarks import evidence_summary

    return markdown(evidence_summary.COLUMNS, evidence_summary.table_rows(results))


def backbones(results: dict[str, Any]) -> str:
    from benchmarks import backbones as module

    return markdown(module.COLUMNS, module.table_rows(results))


def clusterers(results: dict[str, Any]) -> str:
    from benchmarks import clusterers as module

    sizes = dict.fromkeys(cost["num_rows"] for cost in results["costs"])
    costs = markdown(
        [f"method, {results['dims']} dimensions", *(f"{size:,} videos" for size in sizes)],
        module.cost_rows(results),
    )
    videos = results["unrelated"][0]["num_rows"]
    columns = [f"clusters, each of two unrelated assignments of {videos:,} videos", "NMI", "1 - NMI", "churn"]
    return f"{costs}\n\n{markdown(columns, module.chance_rows(results))}"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "demo": demo,
    "flow": flow,
    "demo-seeds": demo_seeds,
    "loader": bench(loader),
    "loader-sources": bench(sources),
    "cluster": bench(cluster),
    "clusterers": clusterers,
    "step": bench(step),
    "peers": peers,
    "fuzz-prepare": fuzz_prepare,
    "store-reading": store_reading,
    "codecs": codecs,
    "colour": colour,
    "large-store": large_store,
    "validation-stall": validation_stall,
    "peers-made": peers_made,
    "peers-curves": peers_curves,
    "search": search,
    "profile": profile,
    "evidence": evidence,
    "backbones": backbones,
}
RESULT_OF = {"peers-made": "peers"}  # tables drawn from the result of another kind


def source(path: Path, content: dict[str, Any], root: str) -> str:
    machine = content["machine"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    return f"[{path.name}]({root}benchmarks/results/{path.name}): {where}, torch {machine['torch']}"


def drawn(page: str, root: str = "") -> str:
    """A page with every marked table drawn anew; `root` leads from the page to the repository."""

    def table(match: re.Match[str]) -> str:
        kind = match[1]
        path = newest(RESULT_OF.get(kind, kind))
        content = json.loads(path.read_text(encoding="utf-8"))
        body = TABLES[kind](content["results"])
        if kind not in RESULT_OF and (chart := path.with_suffix(".svg")).exists():
            body += f"\n\n![{kind}]({root}benchmarks/results/{chart.name})"
        return f"<!-- table: {kind} -->\n{body}\n\n{source(path, content, root)}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w-]+) -->.*?<!-- end -->", table, page, flags=re.DOTALL)


def main() -> None:
    for page in (ROOT / "README.md", ROOT / "DIFFERENCES.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        new = drawn(text, "../" if page.parent != ROOT else "")
        if "--check" not in sys.argv[1:]:
            if new != text:
                page.write_text(new, encoding="utf-8")
        elif new != text:
            name = page.relative_to(ROOT)
            sys.exit(f"{name} does not say what benchmarks/results says; run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
