"""What is measured and what is written down with it."""

import json
import subprocess
import sys
import time

import pytest

from slicfast.bench.harness import Repeated, measure, measure_in_turn, write_result
from slicfast.machine import machine


def test_cpu_and_wall_time_are_told_apart():
    def spin_then_sleep() -> None:
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        time.sleep(0.03)

    measured = measure(spin_then_sleep, num_runs=5, num_warmup=1)
    assert measured.num_runs == 5
    assert 10 <= measured.cpu_ms < measured.wall_ms
    assert measured.wall_ms >= 40
    low, high = measured.wall_ms_quartiles
    assert low <= measured.wall_ms <= high


def test_warm_up_runs_are_not_measured_and_the_device_is_waited_for():
    calls: list[str] = []
    measured = measure(
        lambda: calls.append("run"),
        num_runs=1,
        num_warmup=2,
        synchronize=lambda: calls.append("wait"),
    )
    assert calls == ["run", "run", "wait", "run", "wait"]
    assert measured.cpu_ms_quartiles == [measured.cpu_ms, measured.cpu_ms]


def test_things_measured_in_turn_alternate():
    calls: list[str] = []
    runs = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    measured = measure_in_turn(runs, num_runs=3, num_warmup=1)
    assert calls == ["a", "b", *["a", "b"] * 3]
    assert list(measured) == ["a", "b"] and measured["a"].num_runs == 3


def test_cpu_time_of_a_process_that_was_started_and_ended_counts():
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    measured = measure(lambda: subprocess.run([sys.executable, "-c", spin]), num_runs=1, num_warmup=0)
    assert measured.cpu_ms >= 300


def test_repetitions_stay_in_order_and_their_summary_is_the_middle():
    repeated = Repeated([3.0, 1.0, 2.0], [30.0, 10.0, 20.0]).summary()
    assert repeated.cpu_ms == 2.0 and repeated.wall_ms == 20.0
    assert repeated.cpu_ms_quartiles == [1.5, 2.5] and repeated.num_runs == 3


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="num_runs"):
        measure(lambda: None, num_runs=0)


def test_result_carries_the_machine_and_versions(tmp_path):
    path = tmp_path / "results" / "x.json"
    measured = measure(lambda: None, num_runs=3)
    write_result(path, "nothing", {"cost": measured.to_dict()})
    written = json.loads(path.read_text())
    assert written["benchmark"] == "nothing"
    assert written["results"]["cost"]["num_runs"] == 3
    assert written["machine"]["processor"] and written["machine"]["cores"] >= 1
    assert {"torch", "numpy", "python", "commit", "time"} <= set(written["machine"])
    assert written["machine"]["torch"] == machine()["torch"]
