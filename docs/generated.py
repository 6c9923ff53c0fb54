"""MkDocs hook: the pages of commands and of the configuration, made from the program itself at build time."""

from __future__ import annotations

import inspect
import io
import re
import textwrap
import tokenize
from typing import Any

import typer
from mkdocs.structure.files import File, Files

from slicfast.cli.app import app
from slicfast.config import Config, Section


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those that lie in docs/, and the commands' to the navigation."""
    pages = command_pages()
    rows = [f"| [`{name}`]({file}) | {summary} |" for name, (file, summary, _) in pages.items()]
    index = "# Commands\n\n| command | |\n|---|---|\n" + "\n".join(rows) + "\n"
    files.append(File.generated(config, "commands.md", content=index))
    for file, _, content in pages.values():
        files.append(File.generated(config, file, content=content))
    files.append(File.generated(config, "configuration.md", content=configuration()))
    for entry in config["nav"]:
        if "Commands" in entry:
            entry["Commands"] = ["commands.md", *({name: page[0]} for name, page in pages.items())]
    return files


def command_pages() -> dict[str, tuple[str, str, str]]:
    """By command: its page's file, its first sentence, and the page."""
    pages: dict[str, tuple[str, str, str]] = {}

    def describe(command: Any, words: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            describe(inner, (*words, name))
        if not hasattr(command, "commands"):
            text = inspect.cleandoc(command.help or "")
            summary = " ".join(text.partition("\n\n")[0].split()).replace("|", "&#124;")
            pages[" ".join(words)] = (
                f"commands/{'-'.join(words[1:])}.md",
                summary,
                command_page(command, words),
            )

    describe(typer.main.get_command(app), ("slicfast",))
    return pages


def command_page(command: Any, words: tuple[str, ...]) -> str:
    """Usage, arguments, options with their defaults, and examples, as the command line defines them."""
    path = " ".join(words)
    context = command.make_context(path, [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [f"# {path}", inspect.cleandoc(command.help or ""), f"```text\n{path} {usage}\n```"]
    for kind, title in (("argument", "Arguments"), ("option", "Options")):
        rows = [
            f"| `{', '.join(one.opts) if kind == 'option' else one.metavar or one.name}` |"
            f" {'required' if one.required else shown(one.default)} |"
            f" {cell(getattr(one, 'help', None) or '')} |"
            for one in command.params
            if one.param_type_name == kind and not getattr(one, "hidden", False)
        ]
        if rows:
            parts.append(f"## {title}\n\n| | default | |\n|---|---|---|\n" + "\n".join(rows))
    if command.epilog:
        examples = re.sub(r"\[/?[a-z]+\]", "", inspect.cleandoc(command.epilog)).replace("Examples:", "")
        lines = [line.strip() for line in examples.splitlines() if line.strip()]
        parts.append("## Examples\n\n```text\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(parts) + "\n"


def shown(default: Any) -> str:
    """A default as a table's cell; empty where there is none to name."""
    return "" if default is None or default in ((), [], False) or callable(default) else f"`{default}`"


def cell(text: str) -> str:
    """Text that may stand in a table's cell."""
    return " ".join(text.split()).replace("|", "&#124;").replace("<", "&lt;")


def configuration() -> str:
    """A table a section: key, type, default and what config.py says beside it."""
    parts = ["# Configuration\n"]
    top = comments(Config)
    for name, value in Config():
        section = isinstance(value, Section)
        says = comments(type(value)) if section else top
        prefix = f"{name}." if section else ""
        values = value.model_dump(mode="json") if section else {name: value}
        told = {key: says.get(key, ("", "")) for key in values}
        rows = [
            f"| `{prefix}{key}` | `{told[key][0]}` | `{inner}` | {cell(told[key][1])} |"
            for key, inner in values.items()
        ]
        text = inspect.cleandoc(type(value).__doc__ or "") if section else ""
        table = "| key | type | default | |\n|---|---|---|---|\n" + "\n".join(rows)
        parts.append(f"## {name}\n\n{text}\n\n{table}\n")
    return "\n".join(parts)


def comments(section: type) -> dict[str, tuple[str, str]]:
    """By key of a class: its type as written, and the comment behind it or on the lines above it."""
    lines = textwrap.dedent(inspect.getsource(section)).splitlines()
    found: dict[str, tuple[str, str]] = {}
    behind = {
        token.start[0]: (token.string.lstrip("# "), token.line.strip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline)
        if token.type == tokenize.COMMENT
    }
    above: list[str] = []
    for number, line in enumerate(lines, start=1):
        text, alone = behind.get(number, ("", False))
        if alone:
            above.append(text)
            continue
        match = re.match(r"    (\w+): ([^=#]+?)\s*(=|#|$)", line)
        if match:
            found[match[1]] = (match[2], " ".join([*above, text]).strip())
        above = []
    return found
