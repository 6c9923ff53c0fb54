"""Figures read off a trace agree with what the trace was made from."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from slicfast.bench.profile import read_csv, summarize_tables
from slicfast.bench.trace import covered, dearest, read_trace, self_times, summarize
from slicfast.errors import DataError, RunError


def event(name, start, length, cat="cpu_op", tid=1):
    return {"ph": "X", "name": name, "cat": cat, "ts": start, "dur": length, "pid": 1, "tid": tid}


def test_a_union_of_intervals_agrees_with_counting_ticks():
    rng = np.random.default_rng()
    for _ in range(50):
        start_N = rng.integers(0, 200, 30)
        end_N = start_N + rng.integers(0, 20, 30)
        ticks = np.zeros(300, dtype=bool)
        for start, end in zip(start_N, end_N, strict=True):
            ticks[start:end] = True
        assert covered(zip(start_N.tolist(), end_N.tolist(), strict=True)) == ticks.sum()


def test_an_operator_does_not_count_what_it_calls():
    events = [event("outer", 0, 100), event("inner", 10, 30), event("leaf", 15, 5), event("inner", 50, 20)]
    events.append(event("outer", 20, 40, tid=2))
    assert sorted(self_times(events)) == [
        ("inner", 20),
        ("inner", 25),
        ("leaf", 5),
        ("outer", 40),
        ("outer", 50),
    ]


def test_on_a_cpu_what_is_idle_is_the_wait_for_clips():
    spans = [event("wait", 0, 25, "user_annotation"), event("forward", 25, 75, "user_annotation")]
    found = summarize([*spans, event("aten::mm", 30, 60)])
    assert not found.on_gpu
    assert found.idle_share == pytest.approx(0.25)
    assert found.window_ms == pytest.approx(0.1)
    assert found.spans == {"wait": 0.025, "forward": 0.075}


def test_on_a_gpu_what_is_idle_is_the_time_without_a_kernel():
    spans = [event("forward", 0, 10, "user_annotation"), event("backward", 10, 10, "user_annotation")]
    kernels = [
        event("conv", 5, 30, "kernel"),
        event("copy", 20, 25, "gpu_memcpy"),
        event("conv", 70, 30, "kernel"),
    ]
    found = summarize([*spans, *kernels, event("aten::mm", 0, 20)])
    assert found.on_gpu
    assert found.idle_share == pytest.approx(1 - 70 / 100)
    assert [(kernel.name, kernel.num_calls) for kernel in found.kernels] == [("conv", 2), ("copy", 1)]
    assert found.kernels[0].share == pytest.approx(60 / 85)


def test_the_dearest_come_first_and_no_more_than_asked_for():
    found = dearest([("a", 1.0), ("b", 5.0), ("a", 3.0), ("c", 0.5)], 2)
    assert [(kernel.name, kernel.ms) for kernel in found] == [("b", 0.005), ("a", 0.004)]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", gzip.compress(b"no json", mtime=0), b'{"traceEvents": 3}']
)
def test_what_is_no_trace_is_refused_in_a_line(tmp_path, content):
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a Chrome trace"):
        read_trace(path)
    with pytest.raises(DataError, match="no trace at"):
        read_trace(tmp_path / "missing.json")


def test_a_trace_without_a_step_is_refused(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": [event("aten::mm", 0, 1)]}))
    with pytest.raises(DataError, match="no training step"):
        summarize(read_trace(path))


def test_nsight_tables_give_the_same_kind_of_summary():
    gpu = read_csv(
        "Processing [report.sqlite]...\n\n"
        "Start (ns),Duration (ns),CorrId,Name\n1000,3000,1,conv\n5000,1000,2,copy\n8000,2000,3,conv\n"
    )
    ranges = read_csv(
        "Time (%),Total Time (ns),Instances,Range\n60.0,6000000,5,:forward\n40.0,4000000,5,:wait\n"
    )
    found = summarize_tables(gpu, ranges)
    assert found.window_ms == pytest.approx(0.009)
    assert found.idle_share == pytest.approx(1 - 6 / 9)
    assert found.spans == {"forward": 6.0, "wait": 4.0}
    assert [(kernel.name, kernel.num_calls) for kernel in found.kernels] == [("conv", 2), ("copy", 1)]
    with pytest.raises(RunError, match="no kernel"):
        summarize_tables([], ranges)
