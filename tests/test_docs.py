"""The documentation as a site: it builds strictly, without the network, and names every command and key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slicfast.config import all_keys

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
    assert "fonts.googleapis.com" not in (tmp_path / "site/index.html").read_text()
