"""What a person sees of long work: nothing of short work, plain lines in a pipe, a bar on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from slicfast import progress
from slicfast.progress import format_duration, format_rate, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, as one element to be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("RANK", raising=False)
    return now


def test_short_work_shows_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with track("Preparing", total=10, unit="videos") as bar:
        for done in range(10):
            clock[0] += 0.19
            bar.update(done + 1)
    assert capsys.readouterr() == ("", "")


def test_long_work_in_a_pipe_writes_a_line_every_ten_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with track("Preparing", total=240, unit="videos") as bar:
        for done in range(240):
            clock[0] += 0.125
            bar.update(done + 1, message=f"{done} kept")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 4  # at 2, 12 and 22 s, and the end
    assert lines[1] == "Preparing: 96 of 240 videos, 8 videos/s, 18 s left, 95 kept"
    assert lines[-1] == "Preparing: 240 of 240 videos, 8 videos/s, in 30 s, 239 kept"


def test_work_done_before_does_not_count_into_the_rate(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with track("Preparing", total=1000, unit="videos", done=900) as bar:
        clock[0] += 5
        bar.update(910)
    assert "910 of 1,000 videos, 2 videos/s, 45 s left" in capsys.readouterr().err


def test_unknown_total_has_no_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with track("Reading") as bar:
        clock[0] += 4
        bar.advance(2)
        bar.advance(0)
    assert capsys.readouterr().err.splitlines()[0] == "Reading: 2 steps, 30 steps/min"


def test_only_the_first_process_of_a_torchrun_shows_progress(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with track("Training", total=2) as bar:
        clock[0] += 60
        bar.update(1)
        bar.log("a line")
    assert capsys.readouterr().err == ""


def test_an_error_ends_the_bar_without_a_closing_line(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="broken"), track("Training", total=2) as bar:
        clock[0] += 60
        bar.update(1)
        raise ValueError("broken")
    assert len(capsys.readouterr().err.splitlines()) == 1


PROGRAM = """
import slicfast.progress as progress
progress.SHOW_AFTER_S = progress.DRAW_EVERY_S = 0.0
with progress.track("Training", total=3, unit="steps") as bar:
    bar.update(1)
    bar.log("a line that stays")
    with progress.track("Embedding", total=2, unit="clips") as inner:
        inner.update(2)
    bar.update(3, message="loss 0.5")
print("result")
"""


def _on_terminal(**environment: str) -> tuple[str, str]:
    """What PROGRAM writes to a terminal on standard error, and to a pipe on standard output."""
    parent, child = pty.openpty()
    names = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=child,
        text=True,
        env=names | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
    )
    os.close(child)
    shown = b""
    try:
        while chunk := os.read(parent, 65536):
            shown += chunk
    except OSError:
        pass  # Linux: the terminal's last writer has gone
    out, _ = process.communicate(timeout=60)
    os.close(parent)
    return shown.decode(), out


def test_a_terminal_gets_a_bar_and_a_pipe_only_the_result() -> None:
    shown, out = _on_terminal()
    assert out == "result\n"
    assert "━" in shown
    assert "\x1b[38" in shown
    assert "a line that stays" in shown
    assert "2 of 2 clips" in shown
    assert "3 of 3 steps" in shown
    assert "loss 0.5" in shown


def test_no_color_takes_the_colours_away() -> None:
    shown, _ = _on_terminal(NO_COLOR="1")
    assert "3 of 3 steps" in shown
    assert "\x1b[38" not in shown


def test_a_dumb_terminal_gets_plain_lines() -> None:
    shown, _ = _on_terminal(TERM="dumb")
    assert "\x1b" not in shown
    assert "Training: 3 of 3 steps" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (7384, "2:03:04 h")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_slow_rates_are_given_a_minute() -> None:
    assert format_rate(12.34, "clips") == "12.3 clips/s"
    assert format_rate(0.25, "videos") == "15 videos/min"
