"""How a configuration is given: YAML files, dotted overrides, and one line for what is wrong with them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from slicfast.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file holding a mapping. Raises ConfigError otherwise."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read configuration {path}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise ConfigError(
            f"{path} is not valid YAML{line}: {getattr(error, 'problem', None) or error}"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold sections such as 'train:'; found a {type(values).__name__}")
    return values


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides such as ``optim.lr=0.05`` as nested values; keys are not checked yet.

    Raises ConfigError for one that cannot be read.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        apply_override(values, override)
    return values


def apply_override(values: dict[str, Any], override: str) -> None:
    """Put ``section.key=value`` into nested values. Raises ConfigError where it cannot be read."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override must look like section.key=value; got '{override}'")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {key}: cannot read the value '{text}'") from None
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        value = float(value)  # YAML 1.1 reads 1e-3 as text; everybody means the number
    parts = key.strip().split(".")
    section = values
    for part in parts[:-1]:
        inner = section.setdefault(part, {})
        if inner is None:
            inner = section[part] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"override {key}: '{part}' is a value, not a section")
        section = inner
    section[parts[-1]] = value


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """One line for the first problem, with the nearest valid key for an unknown one."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {_nearest_key(path, root)}{more}"
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if first["type"] == "value_error":
        return f"{key + ': ' if key else ''}{message}{more}"
    return f"{key}: {message[0].lower() + message[1:]}; got {first['input']!r}{more}"


def _nearest_key(path: Sequence[str], root: type[BaseModel]) -> str:
    """The same key in another section, else one spelt or begun alike here, else one spelt alike in any."""
    here = list(_section(path[:-1], root).model_fields)
    known = dotted_keys(root)
    names = {key: key.rsplit(".", 1)[-1] for key in known}
    near = [key for key in known if names[key] == path[-1]]
    if not near:
        alike = difflib.get_close_matches(path[-1], here, n=1)
        alike = alike or [name for name in here if name.startswith(f"{path[-1]}_")]
        near = [".".join([*path[:-1], name]) for name in alike]
    if not near:
        alike = difflib.get_close_matches(path[-1], sorted(set(names.values())), n=1, cutoff=0.7)
        near = [key for key in known if names[key] in alike]
    if near:
        return f"the nearest is {' or '.join(repr(key) for key in near)}"
    return f"valid here: {', '.join(here)}"


def _section(path: Sequence[str], root: type[BaseModel]) -> type[BaseModel]:
    model = root
    for part in path:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return model


def dotted_keys(root: type[BaseModel]) -> list[str]:
    """Every key of a model and of its sections, in the order of its file."""
    keys: list[str] = []
    for name, field in root.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys.extend(f"{name}.{inner}" for inner in field.annotation.model_fields)
        else:
            keys.append(name)
    return keys
