"""Runs side by side: in which keys their configurations differ, and what came of them."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slicfast.errors import DataError, SlicfastError
from slicfast.evaluation.document import read_document
from slicfast.overrides import read_yaml
from slicfast.records import RunFolder, read_metrics

RUNNING_S = 300.0  # a run that has logged so recently may still be at it
MAX_GAP_S = 600.0  # a longer one between two lines is a pause, not training

Values = dict[str, float | str | None]


@dataclass(frozen=True)
class RunSummary:
    """One run.

    Attributes:
        path: its folder.
        config: dotted key -> value, as resolved.
        state: finished, running, stopped or not begun.
        results: name -> figure; a name that a run lacks is not there.
        evaluated: what evaluation.json compared: query and gallery split, store, protocols.
        missing: files that are not there or cannot be read, with the reason.
    """

    path: str
    config: dict[str, Any]
    state: str
    results: Values
    evaluated: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Runs, the keys in which they differ with a value a run, and how their evaluations differ."""

    runs: list[RunSummary]
    config: dict[str, list[Any]]
    evaluated: dict[str, list[Any]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_runs(paths: Sequence[str | Path]) -> Comparison:
    """Read the runs. What one lacks is named in it; a folder that is no run at all raises DataError."""
    runs = [summarize(Path(path)) for path in paths]
    return Comparison(
        runs,
        differences([run.config for run in runs]),
        differences([run.evaluated for run in runs if run.evaluated]),
    )


def differences(dictionaries: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Keys whose values are not the same in all, in order of appearance; None where one has no such key."""
    keys = list(dict.fromkeys(key for values in dictionaries for key in values))
    table = {key: [values.get(key) for values in dictionaries] for key in keys}
    return {key: row for key, row in table.items() if any(value != row[0] for value in row)}


def summarize(path: Path) -> RunSummary:
    """One run folder, finished or not."""
    if not path.is_dir():
        raise DataError(f"no run folder at {path}")
    run = RunFolder(path)
    missing: dict[str, str] = {}
    config: dict[str, Any] = {}
    try:
        config = flatten(read_yaml(run.config))
    except SlicfastError as error:
        missing["config.yaml"] = str(error)
    entries: list[dict[str, Any]] = []
    try:
        entries = read_metrics(run.metrics)
    except OSError as error:
        missing["metrics.jsonl"] = error.strerror or str(error)
    if len(missing) == 2:
        raise DataError(f"{path} is no run folder: it has neither config.yaml nor metrics.jsonl")
    state, epoch = _state(run, config, entries)
    results = {"epoch": epoch, **_training(entries), **_retrieval(entries), **_clusters(entries)}
    evaluated: dict[str, Any] = {}
    file = path / "evaluation.json"
    if file.exists():
        try:
            figures, evaluated = _evaluation(read_document(file))
            results |= figures
        except (SlicfastError, KeyError, TypeError) as error:
            missing["evaluation.json"] = f"cannot be read ({error})"
    return RunSummary(str(path), config, state, results, evaluated, missing)


def _state(run: RunFolder, config: dict[str, Any], entries: list[dict[str, Any]]) -> tuple[str, int | None]:
    """How far a run has come, by its log: epochs begun, or all of them once the last one is saved."""
    trained = [entry for entry in entries if entry["kind"] == "train"]
    if not trained:
        return "not begun", None
    epochs = config.get("train.epochs")
    done = _epochs_done(run)
    if done is not None and epochs is not None and done >= epochs:
        return "finished", epochs
    running = time.time() - max(entry.get("time", 0.0) for entry in entries) < RUNNING_S
    return "running" if running else "stopped", int(trained[-1].get("epoch", 0))


def _epochs_done(run: RunFolder) -> int | None:
    if not run.last.exists():
        return None
    from slicfast.engine.checkpoint import read_epoch

    try:
        return read_epoch(run.last)
    except SlicfastError:
        return None


def _training(entries: list[dict[str, Any]]) -> Values:
    trained = [entry for entry in entries if entry["kind"] == "train"]
    losses = [entry["loss"] for entry in trained if entry.get("loss") is not None]
    found: Values = {}
    if trained:
        found["steps"] = trained[-1]["step"]
    if losses:
        found |= {"loss, last": losses[-1], "loss, best": min(losses)}
    for key, name in (("clips_per_second", "clips/s"), ("wait_share", "waiting share")):
        values = [entry[key] for entry in trained if entry.get(key) is not None]
        if values:
            found[name] = statistics.median(values)
    times = [entry["time"] for entry in entries if "time" in entry]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    if gaps:
        found["hours"] = sum(gap for gap in gaps if 0 < gap < MAX_GAP_S) / 3600
    return found


def _retrieval(entries: list[dict[str, Any]]) -> Values:
    """R@1 of the validation during training: the best with its epoch, and the last."""
    found: Values = {}
    for kind in ("pooled", "projection"):
        values = [
            (entry[f"{kind}_r1"], entry.get("epoch"))
            for entry in entries
            if entry["kind"] == "retrieval" and entry.get(f"{kind}_r1") is not None
        ]
        if values:
            best, epoch = max(values, key=lambda value: value[0])
            found[f"{kind} R@1, best"] = best
            found[f"{kind} R@1, last"] = values[-1][0]
            found[f"{kind} best at epoch"] = epoch
    return found


def _clusters(entries: list[dict[str, Any]]) -> Values:
    rounds = [entry for entry in entries if entry["kind"] == "cluster"]
    names = {"num_clusters": "clusters", "nmi": "NMI", "ami": "AMI", "pair_purity": "pair purity"}
    return {
        name: rounds[-1][key] for key, name in names.items() if rounds and rounds[-1].get(key) is not None
    }


def _evaluation(document: dict[str, Any]) -> tuple[Values, dict[str, Any]]:
    """The figures of evaluation.json that tell runs apart, and what they are figures of."""
    found: Values = {}
    for protocol, kinds in document.get("retrieval", {}).items():
        for kind in ("trained_pooled", "trained_projection"):
            if kind in kinds:
                name = f"{protocol} {kind.removeprefix('trained_')} R@1"
                found[name] = kinds[kind]["recall"]["1"]["value"]
    for name in ("ridge", "logistic", "coclr"):
        figures = document.get("linear", {}).get(name, {}).get("trained_pooled")
        if figures:
            found[f"linear {name} top-1"] = figures["top1"]["value"]
    neighbours = document.get("knn", {}).get("trained_pooled", {})
    if "all" in neighbours:
        found["k-NN top-1, all"] = neighbours["all"]["mean"]
    if "finetune" in document:
        found["fine-tuned top-1"] = document["finetune"]["top1"]["value"]
    evaluated = {key: document.get(key) for key in ("store", "query", "gallery", "num_query", "num_gallery")}
    evaluated["epoch"] = document.get("checkpoint", {}).get("epoch")
    return found, evaluated | flatten(document.get("protocols", {}), "protocols.")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def as_json(comparison: Comparison) -> str:
    return json.dumps(comparison.to_dict(), indent=2)
