"""Who computes a clustering, and what then holds its rows.

`auto` takes the fastest that was measured; torch where nothing was.
"""

from __future__ import annotations

import torch

from slicfast.clustering.rows import HalvedRows, Rows
from slicfast.config import MAX_DISTANCE
from slicfast.errors import ConfigError, MachineError, one_of

BACKENDS = ("auto", "torch", "cupy", "cuml")

# What `auto` means on a GPU for each method. The only place where that is written: change a line when
# `slicfast bench cluster --device cuda` has shown another backend to be faster, and name the result here.
# Nothing has been measured on a GPU yet, so all is torch's.
FASTEST = {"finch": "torch", "kmeans": "torch", "spherical_kmeans": "torch"}


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


def require_backend(backend: str, method: str, device: torch.device) -> None:
    """Raises what `cluster` would raise for this backend, before there are rows."""
    found = resolve_backend(backend, method, device)
    rows_class(found, device)
    if found == "cuml":
        from slicfast.clustering.rapids import require_cuml

        require_cuml()


def rows_class(backend: str, device: torch.device) -> type[Rows]:
    """What holds a bank for a backend that `resolve_backend` named; cuml's searches are torch's.

    Raises MachineError where CuPy is missing or the GPU is too old for its kernels.
    """
    if backend == "cupy":
        from slicfast.clustering.rapids import CupyRows, require_cupy

        require_cupy(device)
        return CupyRows
    return HalvedRows if device.type == "cuda" else Rows
