"""The recipes in configs/ hold what docs/recipes.md says of them; the YAML in docs/objectives.md loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from slicfast.config import Config

ROOT = Path(__file__).parent.parent
PLAIN = Config().to_dict()


def cells(line):
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def table():
    """The rows of the authors' table, as dictionaries by its head."""
    theirs = (ROOT / "docs/recipes.md").read_text().split("\n## Our own")[0]
    lines = [line for line in theirs.splitlines() if line.startswith("|")]
    head, files, rows = cells(lines[0]), cells(lines[2]), [cells(line) for line in lines[3:]]
    assert all(len(row) == len(head) for row in rows)
    return [name.strip("`") for name in files[2:]], rows


def value_of(values, key):
    for part in key.split("."):
        values = values[part]
    return values


@pytest.mark.parametrize("column", range(4))
def test_a_recipe_holds_what_the_table_says(column):
    files, rows = table()
    config = Config.load(ROOT / "configs" / files[column]).to_dict()
    written = yaml.safe_load((ROOT / "configs" / files[column]).read_text())
    compared = 0
    for setting, quoted, *shown in rows:
        if not shown[column]:
            continue
        key, said = quoted.strip("`"), yaml.safe_load(shown[column].strip("*"))
        assert value_of(config, key) == said, f"{setting}: {key} in {files[column]}"
        if shown[column].startswith("**"):
            section, name = key.split(".")
            assert name in written[section], f"{files[column]} does not write {key}"
        else:
            assert value_of(PLAIN, key) == said, f"{key} is not the default"
        compared += 1
    assert compared > 30


def test_every_recipe_has_a_column():
    recipes = {path.name for path in (ROOT / "configs").glob("*_r3d18*.yaml") if "fast" not in path.name}
    assert set(table()[0]) == recipes


def test_every_yaml_shown_of_the_objectives_loads():
    blocks = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs/objectives.md").read_text(), re.DOTALL | re.MULTILINE
    )
    for block in blocks:
        Config.from_dict(yaml.safe_load(block))
    assert len(blocks) >= 4
