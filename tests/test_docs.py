"""The documentation as a site: it builds strictly, without the network, and names every command and key."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from slicfast.cli.app import app
from slicfast.config import Config, all_keys

ROOT = Path(__file__).parent.parent


def test_the_site_builds_strictly_and_names_every_key(tmp_path: Path) -> None:
    pytest.importorskip("material")
    finished = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr
    page = (tmp_path / "site/configuration/index.html").read_text()
    assert [key for key in all_keys() if f"<code>{key}</code>" not in page] == []
    commands = (tmp_path / "site/commands/index.html").read_text()
    for name in ("prepare", "train", "eval retrieval", "report"):
        assert f"slicfast {name}" in commands
    assert all(text in page for text in ("event files in the run folder", "<code>str | None</code>"))
    export = (tmp_path / "site/commands/export/index.html").read_text()
    for text in (
        "RUN|CHECKPOINT",
        "<code>--output, -o</code>",
        "computes otherwise",
        "slicfast export runs/demo",
    ):
        assert text in export
    assert "fonts.googleapis.com" not in (tmp_path / "site/index.html").read_text()


def shown_commands() -> list[str]:
    """Every slicfast command in a fenced block of README.md and docs/, without comments."""
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"^```[^\n]*\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE):
            lines = block.replace("\\\n", " ").splitlines()
            found += [line.partition(" #")[0].strip() for line in lines if line.startswith("slicfast ")]
    return sorted(set(found))


@pytest.mark.parametrize("line", shown_commands())
def test_every_command_shown_is_one_that_the_command_line_takes(line: str) -> None:
    """Parsed, not run: a wrong command, option, value or configuration key fails."""
    name, *arguments = shlex.split(line)
    command: Any = typer.main.get_command(app)
    context = command.make_context(name, arguments, ignore_unknown_options=False)
    while hasattr(command, "commands"):
        name, command, arguments = command.resolve_command(context, context._protected_args + context.args)
        context = command.make_context(name, list(arguments), parent=context)
    Config.load(None, context.params.get("overrides") or ())
