"""The results of a run as tables: from the files that evaluations wrote, else retrieval measured now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slicfast.errors import DataError
from slicfast.evaluation.document import FILE, read_document
from slicfast.evaluation.run import evaluate_run

FILES = (FILE, "retrieval.json")
PROTOCOLS = {"iic": "IIC's protocol", "coclr": "CoCLR's protocol"}
CLASSIFIERS = {"coclr": "linear probe", "ridge": "ridge regression", "logistic": "logistic regression"}


@dataclass(frozen=True)
class ResultTable:
    """Rows of shares in 0 .. 1 (None: not known) under ``columns``; a row's flag says it is a baseline.

    ``intervals``: (low, high) by the names of row and column, where there are any.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...], bool], ...]
    note: str
    intervals: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def value(self, row: str, column: str) -> float | None:
        """One figure by the names of its row and column; None where the table does not have it."""
        if column not in self.columns:
            return None
        place = self.columns.index(column)
        return next((values[place] for name, values, _ in self.rows if name == row), None)


def read_results(run: Path) -> list[ResultTable]:
    """The tables that evaluations have left in the run folder. Raises DataError for a damaged file."""
    for name in FILES:
        path = run / name
        if path.is_file():
            document = read_document(path)
            try:
                return tables(document, f"from {name}")
            except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
                raise DataError(f"{path} lacks {error}; evaluate again") from None
    return []


def measure_results(
    checkpoint: Path, query: str, gallery: str, overrides: dict[str, dict[str, Any]]
) -> list[ResultTable]:
    """Retrieval by IIC's protocol now, and nothing written."""
    report = evaluate_run(checkpoint, query=query, gallery=gallery, overrides=overrides, protocols=("iic",))
    return tables(report.document, "measured for this page")


def tables(document: Mapping[str, Any], origin: str) -> list[ResultTable]:
    """A table for each protocol of retrieval, one of classifiers, one of k-NN, as far as they are there."""
    names = document["row_names"]
    compared = (
        f"{document['num_query']} videos of {document['query']} look among {document['num_gallery']} of"
        f" {document['gallery']}"
    )
    epoch = f"Epoch {document['checkpoint']['epoch']}; {origin}."
    found = []
    for protocol, rows in document.get("retrieval", {}).items():
        ks = list(rows["chance"]["recall"])
        shares = {kind: [row["recall"][k]["value"] for k in ks] for kind, row in rows.items()}
        found.append(
            ResultTable(
                f"Retrieval, {PROTOCOLS.get(protocol, protocol)}: {compared}",
                tuple(f"R@{k}" for k in ks),
                _rows(shares, names),
                f"Share of queries with a video of their class among their k nearest; in small figures, the"
                f" 95 % interval over queries. {epoch}",
                {
                    (names.get(kind, kind), f"R@{k}"): (row["recall"][k]["low"], row["recall"][k]["high"])
                    for kind, row in rows.items()
                    for k in ks
                    if row["recall"][k]["low"] < row["recall"][k]["high"]
                },
            )
        )
    classified = _classifiers(document)
    if classified:
        note = f"Classifiers on frozen features, trained on the gallery's labels. {epoch}"
        found.append(ResultTable("Classifiers", ("top-1", "top-5"), tuple(classified), note))
    if document.get("knn"):
        shots = list(next(iter(document["knn"].values())))
        means = {kind: [row[shot]["mean"] for shot in shots] for kind, row in document["knn"].items()}
        columns = tuple(f"{shot} a class" for shot in shots)
        note = f"Top-1 of weighted k-NN with so many labelled videos a class. {epoch}"
        found.append(ResultTable("Few-shot neighbours", columns, _rows(means, names), note))
    return found


def _rows(
    shares: Mapping[str, list[float]], names: Mapping[str, str]
) -> tuple[tuple[str, tuple[float | None, ...], bool], ...]:
    return tuple(
        (names.get(kind, kind), tuple(values), not kind.startswith("trained"))
        for kind, values in shares.items()
    )


def _classifiers(document: Mapping[str, Any]) -> list[tuple[str, tuple[float | None, ...], bool]]:
    names = document["row_names"]
    found: list[tuple[str, tuple[float | None, ...], bool]] = []
    for method, title in CLASSIFIERS.items():
        for kind, row in document.get("linear", {}).get(method, {}).items():
            values = (row["top1"]["value"], row["top5"]["value"])
            found.append((f"{title}: {names.get(kind, kind)}", values, not kind.startswith("trained")))
    if "finetune" in document:
        row = document["finetune"]
        found.append(("fine-tuned", (row["top1"]["value"], row["top5"]["value"]), False))
    return found
