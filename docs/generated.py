"""MkDocs hook: the pages of commands and of the configuration, made from the program itself at build time."""

from __future__ import annotations

from typing import Any

import typer
from mkdocs.structure.files import File, Files

from slicfast.cli.app import app
from slicfast.config import Config, Section


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those that lie in docs/."""
    files.append(File.generated(config, "commands.md", content=commands()))
    files.append(File.generated(config, "configuration.md", content=configuration()))
    return files


def commands() -> str:
    """A section a command: what it does and its options, as the command line defines them."""
    parts = ["# Commands\n"]
    root = typer.main.get_command(app)

    def describe(command: Any, path: str) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            describe(inner, f"{path} {name}")
        if hasattr(command, "commands"):
            return
        rows = [
            f"| `{' '.join(one.opts) if one.param_type_name == 'option' else one.name}` |"
            f" {(getattr(one, 'help', None) or '').replace('|', '&#124;')} |"
            for one in command.params
        ]
        parts.append(f"## {path}\n\n{command.help or ''}\n\n| | |\n|---|---|\n" + "\n".join(rows) + "\n")

    describe(root, "slicfast")
    return "\n".join(parts)


def configuration() -> str:
    """A table a section: key and default, from the configuration's classes."""
    parts = ["# Configuration\n"]
    for name, value in Config():
        if isinstance(value, Section):
            rows = [f"| `{name}.{key}` | `{inner}` |" for key, inner in value.model_dump(mode="json").items()]
        else:
            rows = [f"| `{name}` | `{value}` |"]
        parts.append(f"## {name}\n\n| key | default |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)
