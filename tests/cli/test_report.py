"""`slicfast report` as a newcomer meets it: what it says, and what it answers to mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slicfast.config import Config


@pytest.fixture
def begun_run(tmp_path: Path) -> Path:
    """A run that has only just begun."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(Config.load(None, ["data.store=gone"]).to_yaml())
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 10, "epoch": 0, "loss": 1.5}\n')
    return run


def test_it_says_where_the_page_is(begun_run: Path, slicfast: Callable) -> None:
    finished = slicfast("report", begun_run)
    assert finished.code == 0, finished.err
    assert f"written to {begun_run}/report.html" in finished.out
    assert "unfinished: epoch 0 of 600" in (begun_run / "report.html").read_text()
    assert slicfast("report", begun_run, "-o", begun_run / "deeper" / "x.html").code == 0
    assert (begun_run / "deeper" / "x.html").exists()


def test_mistakes_are_one_line(begun_run: Path, tmp_path: Path, slicfast: Callable) -> None:
    for arguments, said in (
        ((tmp_path / "nowhere",), "no run folder at"),
        ((tmp_path,), "holds no config.yaml"),
        ((begun_run, "--set", "data.stroe=x"), "the nearest is 'data.store'"),
        ((begun_run, "-o", "/proc/x/report.html"), "cannot write /proc/x/report.html"),
    ):
        finished = slicfast("report", *arguments)
        assert finished.code in (1, 2)
        assert said in finished.error_line
