"""The walls of ARCHITECTURE.md: every file on a floor of its table, no import upward, none in a circle.

Imports inside functions count as well; what only type checkers read does not.
"""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "slicfast"


def module_files(root: Path) -> dict[str, Path]:
    """Module name -> file."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module name -> modules of the package that it imports."""
    files = module_files(root)
    graph = {}
    for name, path in files.items():
        imported = set()
        for node in executed(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively"
                named = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= named & set(files) or {str(node.module)}
        graph[name] = imported & set(files) - {name}
    return graph


def executed(node: ast.AST):
    """Every node below that is not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from executed(child)


def floors() -> dict[str, int]:
    """The first name below the package -> floor, as the table says."""
    found = {}
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        if row := re.match(r"\| (\d) \| ([^|]+) \|", line):
            found |= {
                name.removesuffix("/").removesuffix(".py"): int(row[1])
                for name in re.findall(r"`([^`]+)`", row[2])
            }
    return found


def wrong_imports(graph: dict[str, set[str]]) -> list[str]:
    """Imports of a higher floor, and of another folder of floor 2."""
    floor_of = floors()
    wrong = []
    for name, imported in graph.items():
        for other in imported:
            mine, theirs = (module.split(".")[1:2] for module in (name, other))
            if not mine or not theirs or mine == theirs or mine == ["__main__"]:
                continue
            at, target = floor_of[mine[0]], floor_of[theirs[0]]
            if target > at or (at == target == 2):
                wrong.append(f"{name} imports {other}")
    return wrong


def test_no_file_imports_upward():
    graph = import_graph(ROOT)
    assert len(graph) > 150
    assert wrong_imports(graph) == []
    assert wrong_imports({"slicfast.data.store": {"slicfast.models.stem", "slicfast.engine.encoder"}})


def test_imports_go_in_no_circle():
    assert tuple(TopologicalSorter(import_graph(ROOT)).static_order())


def test_a_late_import_counts_and_one_for_type_checkers_does_not(tmp_path):
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "one.py").write_text("def f():\n    from slicfast.two import g\n")
    late = "if TYPE_CHECKING:\n    from slicfast.one import f\n"
    (tmp_path / PACKAGE / "two.py").write_text(late)
    assert import_graph(tmp_path) == {"slicfast.one": {"slicfast.two"}, "slicfast.two": set()}
    (tmp_path / PACKAGE / "two.py").write_text(f"{late}from slicfast import one\n")
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(tmp_path)).prepare()


def test_every_file_stands_on_a_floor():
    names = {name.split(".")[1] for name in module_files(ROOT) if "." in name} - {"__main__"}
    assert names == set(floors())
