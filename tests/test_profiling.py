"""Spans reach whoever listens, and a window opens and closes where it should."""

from __future__ import annotations

import pytest
import torch

from slicfast.bench.trace import read_trace
from slicfast.errors import ConfigError
from slicfast.profiling import Capture, Window, listen, mark_ranges, span


@pytest.fixture(autouse=True)
def nobody_listens_afterwards():
    yield
    listen(None)


def test_spans_reach_the_listener_and_nobody_once_it_is_gone():
    heard = []

    class Heard:
        def __init__(self, name):
            heard.append(name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    listen(Heard)
    with span("forward"), span("loss"):
        pass
    mark_ranges(torch.device("cpu"))
    with span("backward"):
        pass
    assert heard == ["forward", "loss"]


@pytest.mark.parametrize("text", ["50", "60:50", "5:5", "-1:3", "a:b", ""])
def test_a_window_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="must look like 50:60"):
        Window.parse(text)


def test_a_window_holds_the_steps_from_its_first_to_before_its_last(tmp_path):
    trace = tmp_path / "new" / "trace.json.gz"
    capture = Capture(Window.parse("2:5", trace), torch.device("cpu"))
    for step in range(8):
        capture.at(step)
        with span("forward"):
            torch.ones(step + 1).sum()
    capture.close()
    spans = [event for event in read_trace(trace) if event["name"] == "forward"]
    assert len(spans) == 3
    assert [path.name for path in trace.parent.iterdir()] == ["trace.json.gz"]


def test_a_window_cut_short_by_the_end_of_the_run_is_written(tmp_path):
    trace = tmp_path / "trace.json"
    capture = Capture(Window(1, 100, trace), torch.device("cpu"))
    for step in range(3):
        capture.at(step)
        with span("backward"):
            pass
    capture.close()
    assert [event["name"] for event in read_trace(trace) if event["cat"] == "user_annotation"] == [
        "backward"
    ] * 2


def test_a_resumed_run_past_the_window_opens_none(tmp_path):
    capture = Capture(Window(1, 3, tmp_path / "trace.json"), torch.device("cpu"))
    capture.at(7)
    capture.close()
    assert not list(tmp_path.iterdir())
