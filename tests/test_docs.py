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


def test_the_site_builds_strictly_and_names_every_command_and_key(tmp_path: Path) -> None:
    pytest.importorskip("material")
    site = tmp_path / "site"
    finished = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(site)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr
    page = (site / "configuration/index.html").read_text()
    assert [key for key in all_keys() if f"<code>{key}</code>" not in page] == []
    assert "frames between two frames of a clip" in page  # a comment of sections.py
    overview = (site / "commands/index.html").read_text()
    for path in command_paths(typer.main.get_command(app), "slicfast"):
        assert f"<code>{path}</code>" in overview
        own = site / "commands" / path.removeprefix("slicfast ").replace(" ", "-") / "index.html"
        assert "unless said" in own.read_text() or path == "slicfast version", path
    for html in site.rglob("*.html"):
        text = html.read_text()
        assert "fonts.googleapis.com" not in text
        for source in re.findall(r'<img[^>]* src="([^"]+)"', text):
            assert (html.parent / source).exists(), f"{html.relative_to(site)} shows {source}"


def command_paths(command: Any, path: str) -> list[str]:
    inner = getattr(command, "commands", None)
    if inner is None:
        return [path]
    return [found for name, one in inner.items() for found in command_paths(one, f"{path} {name}")]


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
