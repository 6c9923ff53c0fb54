"""The configuration of a run beside its defaults, so that a reader sees what was decided for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slicfast.config import Config


@dataclass(frozen=True)
class Setting:
    """One key with its value, and the default as text where it is another."""

    key: str
    value: str
    default: str | None


def settings_by_section(config: Config) -> dict[str, list[Setting]]:
    """Section -> its settings, in the order of the configuration; keys outside a section come under "run"."""
    defaults = Config().to_dict()
    found: dict[str, list[Setting]] = {}
    for name, value in config.to_dict().items():
        if isinstance(value, Mapping):
            found[name] = [_setting(key, inner, defaults[name][key]) for key, inner in value.items()]
        else:
            found.setdefault("run", []).append(_setting(name, value, defaults[name]))
    return found


def _setting(key: str, value: Any, default: Any) -> Setting:
    return Setting(key, _text(value), None if value == default else _text(default))


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
