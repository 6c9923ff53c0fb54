"""`slicfast eval ...` without the printing: a checkpoint by one protocol or by all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slicfast.evaluation.document import (
    default_path,
    document,
    read_finetuning,
    require_writable,
    write_document,
)
from slicfast.evaluation.features import Features
from slicfast.evaluation.probe import linear_probe
from slicfast.evaluation.protocols import (
    RETRIEVAL_PROTOCOLS,
    ROW_NAMES,
    classification_chance,
    fitted_linear,
    knn,
    retrieval,
)
from slicfast.evaluation.subject import Subject, open_subject

SECTIONS = ("retrieval", "linear", "knn")

__all__ = ["ROW_NAMES", "SECTIONS", "RetrievalReport", "evaluate", "evaluate_all", "evaluate_run"]


@dataclass(frozen=True)
class RetrievalReport:
    """R@k by kind of features. ``table`` maps a row's name to k -> share in 0 .. 1, by IIC's protocol.

    ``document`` is the same and more in the form of evaluation.json: intervals, CoCLR's protocol, classes.
    """

    checkpoint: Path
    epoch: int
    query: str
    gallery: str
    num_query: int
    num_gallery: int
    num_clips: int
    table: dict[str, dict[int, float]]
    document: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        return {**self.document, "num_clips": self.num_clips, "table": self.table}


def evaluate_run(
    path: str | Path,
    *,
    query: str | None = None,
    gallery: str | None = None,
    store: str | Path | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
    protocols: Sequence[str] = RETRIEVAL_PROTOCOLS,
    output: Path | None = None,
) -> RetrievalReport:
    """Retrieval of a run's best (or last) checkpoint, one pass over the videos a protocol.

    Args: as `open_subject`'s, and
        protocols: "iic" and "coclr", or "iic" alone.
        output: write the report there as JSON.

    Raises:
        DataError, ConfigError, RunError: one line for what is missing or does not fit.
    """
    subject = open_subject(path, query=query, gallery=gallery, store=store, overrides=overrides)
    if output is not None:
        require_writable(output)
    found = retrieval(Features(subject), protocols)
    report = RetrievalReport(
        checkpoint=subject.file,
        epoch=subject.checkpoint.epoch,
        query=subject.query,
        gallery=subject.gallery,
        num_query=len(subject.query_rows),
        num_gallery=len(subject.gallery_rows),
        num_clips=subject.config.eval.num_clips,
        table={
            name: {k: figure["value"] for k, figure in row["recall"].items()}
            for name, row in found["iic"].items()
        },
        document=document(subject, retrieval=found),
    )
    if output is not None:
        write_document(output, report.to_dict())
    return report


def evaluate(
    path: str | Path,
    *,
    sections: Sequence[str] = SECTIONS,
    train_probe: bool = True,
    query: str | None = None,
    gallery: str | None = None,
    store: str | Path | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
    output: Path | None = None,
) -> dict[str, Any]:
    """Several protocols on one set of features, in the form of evaluation.json.

    Args: as `open_subject`'s, and
        sections: of retrieval, linear and knn.
        train_probe: with linear also CoCLR's probe, which is trained for minutes and tested on ten crops.
        output: write the result there as JSON.

    Raises:
        DataError, ConfigError, RunError: one line for what is missing or does not fit.
    """
    subject = open_subject(path, query=query, gallery=gallery, store=store, overrides=overrides)
    if output is not None:
        require_writable(output)
    written = document(subject, **_sections(subject, sections, train_probe))
    if output is not None:
        write_document(output, written)
    return written


def evaluate_all(
    path: str | Path,
    *,
    train_probe: bool = True,
    query: str | None = None,
    gallery: str | None = None,
    store: str | Path | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
    output: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """All protocols on frozen features; what RUN/evaluation.json (or ``output``) now holds, and its path."""
    subject = open_subject(path, query=query, gallery=gallery, store=store, overrides=overrides)
    output = output or default_path(path, subject)
    require_writable(output)
    finetuned = read_finetuning(path, subject)
    sections = _sections(subject, SECTIONS, train_probe)
    if finetuned is not None:
        sections["finetune"] = finetuned
    written = document(subject, **sections)
    write_document(output, written)
    return written, output


def _sections(subject: Subject, sections: Sequence[str], train_probe: bool) -> dict[str, Any]:
    features = Features(subject)
    found: dict[str, Any] = {}
    if "retrieval" in sections:
        found["retrieval"] = retrieval(features)
    if "linear" in sections:
        found["linear"] = fitted_linear(features)
        found["linear"]["chance"] = classification_chance(len(subject.classes))
        if train_probe:
            found["linear"]["coclr"] = {"trained_pooled": linear_probe(features)}
    if "knn" in sections:
        found["knn"] = knn(features)
    return found
