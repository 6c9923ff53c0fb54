"""Help that teaches, quickly, and usage errors of one line."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

COMMANDS = (
    ("synth",),
    ("prepare",),
    ("train",),
    ("eval",),
    ("eval", "retrieval"),
    ("eval", "linear"),
    ("eval", "knn"),
    ("eval", "finetune"),
    ("eval", "all"),
    ("embed",),
    ("search",),
    ("report",),
    ("export",),
    ("compare",),
    ("bench",),
    ("bench", "loader"),
    ("bench", "step"),
    ("bench", "cluster"),
    ("doctor",),
    ("version",),
)


def test_help_names_every_command_in_the_order_of_use(slicfast: Callable) -> None:
    shown = slicfast("--help")
    assert shown.code == 0
    names = (
        *("synth", "prepare", "train", "eval", "embed", "search", "report", "export", "compare"),
        *("bench", "doctor"),
    )
    places = [shown.out.index(f"│ {name} ") for name in names]
    assert places == sorted(places)
    assert "slicfast train configs/demo.yaml" in shown.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...], slicfast: Callable) -> None:
    shown = slicfast(*command, "--help")
    assert shown.code == 0
    assert f"Usage: slicfast {' '.join(command)}" in shown.out
    assert slicfast(*command, "-h").out == shown.out


@pytest.mark.parametrize(
    "command", ["synth", "prepare", "train", "eval retrieval", "embed", "search", "export", "compare"]
)
def test_help_ends_with_commands_to_copy(command: str, slicfast: Callable) -> None:
    assert f"slicfast {command} " in slicfast(*command.split(), "--help").out.partition("Example")[2]


def test_help_tells_the_true_defaults_of_prepare(slicfast: Callable) -> None:
    from slicfast.data.store import StoreSettings

    shown = " ".join(slicfast("prepare", "--help").out.replace("│", " ").split())
    assert f"{StoreSettings().short_side} unless said" in shown
    assert f"{StoreSettings().quality} unless said" in shown
    assert f"{StoreSettings().codec} unless said" in shown
    assert f"{StoreSettings().crf} unless said" in shown


def test_help_is_quick_and_loads_no_heavy_library() -> None:
    program = (
        "import sys; from slicfast.cli import run\n"
        "code = run(['--help'])\n"
        "heavy = {'torch', 'numpy', 'timm', 'nvidia', 'cv2', 'av', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert finished.returncode == 0, finished.stderr
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert used < 2.0, f"{used:.2f} s of processor time"  # 0.2 s where nothing else runs


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("trian",), "no such command 'trian'. Did you mean 'train'? (see 'slicfast --help')"),
        (
            ("eval", "retreival"),
            "no such command 'retreival'. Did you mean 'retrieval'? (see 'slicfast eval --help')",
        ),
        (
            ("train", "--sett", "x"),
            "no such option: --sett; did you mean --set? (see 'slicfast train --help')",
        ),
        (("train",), "missing argument 'CONFIG' (see 'slicfast train --help')"),
        (("prepare", "a"), "missing argument 'STORE' (see 'slicfast prepare --help')"),
        (("prepare", "a", "b", "c"), "got unexpected extra argument (c) (see 'slicfast prepare --help')"),
        (
            ("prepare", "a", "b", "--limit"),
            "option '--limit' requires an argument (see 'slicfast prepare --help')",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_errors_are_one_line_with_the_nearest(
    arguments: tuple[str, ...], line: str, slicfast: Callable
) -> None:
    finished = slicfast(*arguments)
    assert finished.code == 2
    assert finished.error_line == f"slicfast: error: {line}"
    assert finished.out == ""


@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_numbers_out_of_range_are_refused(value: str, slicfast: Callable) -> None:
    finished = slicfast("prepare", "a", "b", "--limit", value)
    assert finished.code == 2
    assert finished.error_line.startswith("slicfast: error: invalid value for '--limit': it should be ")


@pytest.mark.parametrize("arguments", [(), ("eval",), ("bench",)])
def test_a_group_alone_shows_its_help(arguments: tuple[str, ...], slicfast: Callable) -> None:
    finished = slicfast(*arguments)
    assert (finished.code, finished.err) == (2, "")
    assert "Commands" in finished.out


def test_version_tells_what_a_bug_report_needs(slicfast: Callable) -> None:
    shown = slicfast("version")
    assert shown.code == 0
    for name in ("slicfast 0.", "python 3.", "torch ", "nvidia-dali-cuda"):
        assert name in shown.out
    assert slicfast("--version").out == shown.out
