"""Who computes a clustering, and the three operations that cost: two searches and the sums by label.

`auto` takes the fastest that was measured; torch where nothing was. Legend: N rows, D dimensions, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slicfast.clustering.bank import sums_by_label
from slicfast.clustering.halves import Candidates, exact_match, halve, torch_candidates
from slicfast.clustering.neighbors import best_match, first_neighbors
from slicfast.config import MAX_DISTANCE
from slicfast.errors import ConfigError, MachineError, one_of

BACKENDS = ("auto", "torch", "cupy", "cuml")

# What `auto` means on a GPU for each method. The only place where that is written: change a line when
# `slicfast bench cluster --device cuda` has shown another backend to be faster, and name the result here.
# Nothing has been measured on a GPU yet, so all is torch's.
FASTEST = {"finch": "torch", "kmeans": "torch", "spherical_kmeans": "torch"}


class Rows:
    """A bank of unit rows with float32 searches and sums over it: torch on a CPU."""

    def __init__(self, unit_ND: Tensor) -> None:
        self.unit_ND = unit_ND

    def first_neighbors(self) -> tuple[Tensor, Tensor]:
        """As `neighbors.first_neighbors`."""
        return first_neighbors(self.unit_ND)

    def best_match(self, keys_KD: Tensor, bias_K: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `neighbors.best_match`, the rows being the queries and no key longer than about 1."""
        return best_match(self.unit_ND, keys_KD, bias_K)

    def sums_by_label(self, labels_N: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
        """As `bank.sums_by_label`."""
        return sums_by_label(self.unit_ND, labels_N, num_labels)


class HalvedRows(Rows):
    """The same through half-precision candidates, as exact: torch on a GPU."""

    candidates: Candidates = staticmethod(torch_candidates)

    def __init__(self, unit_ND: Tensor) -> None:
        super().__init__(unit_ND)
        self.halved = halve(unit_ND)

    def first_neighbors(self) -> tuple[Tensor, Tensor]:
        return exact_match(self.halved, self.halved, exclude_same_row=True, candidates=self.candidates)

    def best_match(self, keys_KD: Tensor, bias_K: Tensor | None) -> tuple[Tensor, Tensor]:
        return exact_match(self.halved, halve(keys_KD), bias_K, candidates=self.candidates)


def resolve_backend(backend: str, method: str, device: torch.device) -> str:
    """torch, cupy, cuml or, for the methods that are its own, scikit-learn.

    Raises:
        ConfigError: an unknown name, or one that does not compute the method.
        MachineError: cupy or cuml for rows that are not on a GPU.
    """
    if backend not in BACKENDS:
        raise ConfigError(one_of("clustering backend", backend, BACKENDS))
    if backend == "cuml" and method != "kmeans":
        raise ConfigError(f"cuml computes kmeans only, not {method}; take backend torch or cupy, or auto")
    if method in MAX_DISTANCE:
        if backend == "cupy":
            raise ConfigError(f"scikit-learn computes {method}, not cupy; take backend auto")
        return "scikit-learn"
    if backend in ("cupy", "cuml") and device.type != "cuda":
        raise MachineError(
            f"clustering backend {backend} works on embeddings on a GPU, and these are on the {device.type};"
            " take backend auto or torch"
        )
    if backend != "auto":
        return backend
    return FASTEST.get(method, "torch") if device.type == "cuda" else "torch"


def rows_class(backend: str, device: torch.device) -> type[Rows]:
    """What holds a bank for a backend that `resolve_backend` named; cuml's searches are torch's."""
    if device.type != "cuda":
        return Rows
    return HalvedRows
