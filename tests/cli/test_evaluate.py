"""`slicfast eval ...` as it is printed: tables that fit 80 columns, files, one line for what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_network import write_checkpoint

from slicfast.data.store import ClipStore


@pytest.fixture
def run(tiny_store: ClipStore, tmp_path: Path) -> Path:
    path = tmp_path / "run"
    write_checkpoint(path / "checkpoints" / "last.pt", f"data.store={tiny_store.path}", "data.num_threads=1")
    return path


def rows(out: str) -> dict[str, list[str]]:
    """The cells of all tables, by what stands in the first column."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    return {row[0]: row[1:] for row in cells if row}


def test_all_protocols_in_one_table_and_in_a_file(run: Path, slicfast: Callable) -> None:
    probe = ("--set", "probe.epochs=1", "--set", "probe.batch_size=4")
    finished = slicfast("eval", "all", run, "--per-class", *probe)
    assert finished.code == 0, finished.err
    assert max(map(len, finished.out.replace(str(run), "run").splitlines()[2:])) <= 80
    found, written = rows(finished.out), json.loads((run / "evaluation.json").read_text())
    trained = written["retrieval"]["coclr"]["trained_pooled"]["recall"]["1"]
    assert found["CoCLR R@1"][0] == f"{100 * trained['value']:.1f}"
    interval = f"{100 * trained['low']:.1f}-{100 * trained['high']:.1f}"
    assert found["CoCLR R@1"][1] == (interval if trained["low"] < trained["high"] else "")
    assert {"IIC R@1, proj.", "linear probe", "ridge", "logistic", "k-NN, 5 a class", "k-NN, all"} <= set(
        found
    )
    assert found["left"][0] == "2" and len(found["left"]) == 6
    assert str(run / "evaluation.json") in finished.out.replace("\n", "")


def test_one_protocol_at_a_time(run: Path, slicfast: Callable, tmp_path: Path) -> None:
    linear = slicfast("eval", "linear", run, "--fast", "--output", tmp_path / "linear.json")
    assert linear.code == 0, linear.err
    assert {"ridge: trained, pooled", "logistic: frame differences", "chance"} <= set(rows(linear.out))
    assert "retrieval" not in json.loads((tmp_path / "linear.json").read_text())
    neighbours = slicfast("eval", "knn", run)
    assert neighbours.code == 0, neighbours.err
    assert "±" in rows(neighbours.out)["trained, pooled"][0]
    assert max(map(len, neighbours.out.splitlines()[2:])) <= 81  # 80 where no deviation reaches 10
    assert not (run / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("linear", "RUN", "--query", "tset"), 2, "did you mean 'test'?"),
        (("knn", "RUN", "--store", "nowhere"), 1, "no clip store at nowhere"),
        (("all", "nowhere"), 1, "no run or checkpoint at nowhere"),
        (("finetune", "RUN", "--set", "probe.epoch=3"), 2, "the nearest is 'probe.epochs'"),
        (("finetune", "RUN"), 2, "set probe.batch_size to 8 or less"),
        (("all", "RUN", "--output", "RUN"), 1, "Is a directory"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: tuple[str, ...], code: int, part: str, run: Path, slicfast: Callable
) -> None:
    finished = slicfast("eval", *(run if argument == "RUN" else argument for argument in arguments))
    assert (finished.code, finished.out) == (code, "")
    assert part in finished.error_line
    assert sorted(path.name for path in run.rglob("*")) == ["checkpoints", "last.pt"]
