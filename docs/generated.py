"""MkDocs hook: a page a command and the configuration's reference, made from the program at build time.

Nothing of them is typed: commands describe themselves, and what sections.py says beside a key stands there.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

import slicfast.sections
from slicfast.cli.app import app
from slicfast.config import Config, Section

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the charts that pages show, to what lies in docs/."""
    files.append(File.generated(config, "commands/index.md", content=overview()))
    for path, command in commands():
        files.append(File.generated(config, f"commands/{page_of(path)}", content=command_page(path, command)))
    files.append(File.generated(config, "configuration.md", content=configuration()))
    for chart in RESULTS.glob("*.svg"):
        files.append(File.generated(config, f"results/{chart.name}", abs_src_path=str(chart)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Results' charts are on the site; other links into the repository are for those who read it there."""
    markdown = re.sub(r"(!\[[^\]]*\])\(\.\./benchmarks/results/", r"\1(results/", markdown)
    return re.sub(r"(?<!!)\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", markdown)


def commands() -> Iterator[tuple[str, Any]]:
    """("slicfast eval all", the command) and so on, in the order of the help."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield path, command
            return
        for name in command.list_commands(None):
            yield from walk(inner[name], f"{path} {name}")

    yield from walk(typer.main.get_command(app), "slicfast")


def page_of(path: str) -> str:
    """The file of a command's page in commands/."""
    return f"{path.removeprefix('slicfast ').replace(' ', '-')}.md"


def overview() -> str:
    rows = [f"| [`{path}`]({page_of(path)}) | {_first_line(command)} |" for path, command in commands()]
    return "# Commands\n\n| | |\n|---|---|\n" + "\n".join(rows) + "\n"


def command_page(path: str, command: Any) -> str:
    """Usage, what it does, arguments and options with their defaults, examples."""
    usage = " ".join(
        [path, *(_usage(one) for one in command.params if one.param_type_name == "argument"), "[OPTIONS]"]
    )
    parts = [f"# {path}\n", f"```text\n{usage}\n```\n", _plain(command.help or ""), ""]
    for kind, title in (("argument", "Arguments"), ("option", "Options")):
        rows = [_row(one) for one in command.params if one.param_type_name == kind and not one.hidden]
        if rows:
            parts += [f"## {title}\n", "| | | unless said |\n|---|---|---|", *rows, ""]
    shown = _examples(command.epilog or "")
    if shown:
        parts += ["## Examples\n", "```text", *shown, "```", ""]
    return "\n".join(parts)


def _usage(one: Any) -> str:
    name = one.metavar or one.name.upper()
    return name if one.required or name.startswith("[") else f"[{name}]"


def _row(one: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*one.opts, *one.secondary_opts])
    if one.param_type_name == "argument":
        names = f"`{_usage(one)}`"
    default = "" if one.required or one.default is None or one.default is False else f"`{one.default}`"
    if one.required:
        default = "required"
    text = " ".join(_plain(getattr(one, "help", None) or "").split()).replace("|", "&#124;")
    return f"| {names} | {text} | {default} |"


def _plain(text: str) -> str:
    """Help text without Rich's markup, and safe for Markdown."""
    return re.sub(r"\[/?[a-z ]*\]", "", inspect.cleandoc(text)).replace("<", "&lt;")


def _first_line(command: Any) -> str:
    return _plain(command.help or "").partition("\n")[0]


def _examples(epilog: str) -> list[str]:
    """`[bold]command[/]  [dim]what[/]` a line, as cli.output.examples writes them."""
    found = re.findall(r"\[bold\](.*?)\[/\](?:\s*\[dim\](.*?)\[/\])?", epilog)
    return [f"{command}    # {what}" if what else command for command, what in found]


def configuration() -> str:
    """A table a section: key, type, default, and what sections.py says beside it."""
    parts = ["# Configuration\n", "Every key may stand in a YAML file or after `--set`.\n"]
    values = Config().model_dump(mode="json")
    for name, info in Config.model_fields.items():
        if inspect.isclass(info.annotation) and issubclass(info.annotation, Section):
            said, notes = _notes(info.annotation)
            rows = [
                f"| `{name}.{key}` | {_type(field.annotation)} | `{_yaml(values[name][key])}` |"
                f" {notes.get(key, '')} |"
                for key, field in info.annotation.model_fields.items()
            ]
            parts.append(f"## {name}\n\n{said}\n")
        else:
            rows = [f"| `{name}` | {_type(info.annotation)} | `{_yaml(values[name])}` | |"]
            parts.append(f"## {name}\n")
        parts.append("| key | type | default | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _yaml(value: Any) -> str:
    """As one would write it in a configuration file."""
    return json.dumps(value) if not isinstance(value, str) else value


def _notes(section: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """A section's docstring, and the comments before and behind each of its keys."""
    source = inspect.getsource(slicfast.sections)
    lines = source.splitlines()
    tree = next(
        n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == section.__name__
    )
    notes = {}
    for node in tree.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        before, line = [], node.lineno - 2
        while lines[line].strip().startswith("#"):
            before.insert(0, lines[line].strip(" #"))
            line -= 1
        inside = [text.partition("  # ")[2] for text in lines[node.lineno - 1 : node.end_lineno]]
        text = " ".join([*before, *filter(None, inside)])
        notes[node.target.id] = text.replace("|", "&#124;")
    return ast.get_docstring(tree) or "", notes


def _type(annotation: Any) -> str:
    """`one of a, b`, `number`, `whole number`, ...: what a reader would write."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{value}`" for value in inner)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join("`null`" if one is type(None) else _type(one) for one in inner)
    if origin is tuple:
        return f"{len(inner)} x {_type(inner[0])}"
    names = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text", Path: "path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
