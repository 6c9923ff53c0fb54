"""evaluation.json: what the protocols found, with all that is needed to read the figures years later."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from slicfast.errors import DataError
from slicfast.evaluation.protocols import ROW_NAMES, facts, per_class_support
from slicfast.evaluation.subject import Subject
from slicfast.machine import machine
from slicfast.records import machine_error, write_text

FORMAT = "slicfast-evaluation"
VERSION = 1
FILE = "evaluation.json"


def document(subject: Subject, **sections: Any) -> dict[str, Any]:
    """The file as it will be read: facts, and ``retrieval``, ``linear``, ``knn``, ``finetune`` as given."""
    checkpoint = subject.checkpoint
    values = {
        "format": FORMAT,
        "version": VERSION,
        "checkpoint": {
            "file": str(subject.file),
            "epoch": checkpoint.epoch,
            "global_step": checkpoint.global_step,
            "model": subject.config.model.name,
            **({"weights": "averaged"} if checkpoint.ema else {}),
        },
        "store": str(subject.store.path),
        "trained_on": {
            "store": str(checkpoint.config["data"]["store"]),
            "split": checkpoint.config["data"]["train_split"],
        },
        "query": subject.query,
        "gallery": subject.gallery,
        "num_query": len(subject.query_rows),
        "num_gallery": len(subject.gallery_rows),
        "classes": list(subject.classes),
        "videos_per_class": per_class_support(subject),
        "row_names": ROW_NAMES,
        "protocols": facts(subject),
        **sections,
        "machine": machine(),
    }
    as_read: dict[str, Any] = json.loads(json.dumps(values))  # every key is text now
    return as_read


def default_path(run: str | Path, subject: Subject) -> Path:
    """RUN/evaluation.json, or for another store than the run's RUN/evaluation-STORE.json."""
    return _in_run(run, subject, "evaluation", ".json")


def finetune_folder(run: str | Path, subject: Subject) -> Path:
    """RUN/finetune, or for another store than the run's RUN/finetune-STORE."""
    return _in_run(run, subject, "finetune", "")


def read_finetuning(run: str | Path, subject: Subject) -> dict[str, Any] | None:
    """What fine-tuning of the same checkpoint on the same splits found, where it was done."""
    path = finetune_folder(run, subject) / FILE
    if not path.exists():
        return None
    values = read_document(path)
    mine = document(subject)
    same = all(values[key] == mine[key] for key in ("checkpoint", "query", "gallery", "classes"))
    found: dict[str, Any] | None = values.get("finetune") if same else None
    return found


def _in_run(run: str | Path, subject: Subject, stem: str, suffix: str) -> Path:
    folder = Path(run)
    if not folder.is_dir():
        folder = (
            subject.file.parent.parent if subject.file.parent.name == "checkpoints" else subject.file.parent
        )
    if subject.store.path == Path(subject.checkpoint.config["data"]["store"]):
        return folder / f"{stem}{suffix}"
    return folder / f"{stem}-{subject.store.path.resolve().name}{suffix}"


def require_writable(path: Path) -> None:
    """Raise MachineError now rather than after hours of computing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise machine_error(error, path) from None


def write_document(path: Path, values: dict[str, Any]) -> None:
    """Whole or not at all. Raises MachineError where it cannot be written."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_document(path: Path) -> dict[str, Any]:
    """Raises DataError for a file that is missing or is no evaluation."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no evaluation at {path}; make one with 'slicfast eval all'") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an evaluation: {error}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise DataError(f"{path} is no evaluation that 'slicfast eval' wrote")
    if values["version"] != VERSION:
        raise DataError(f"{path} has format version {values['version']}; this slicfast reads {VERSION}")
    return values
