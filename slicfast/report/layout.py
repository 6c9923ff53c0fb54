"""A map of the embedding in two dimensions: t-SNE (van der Maaten & Hinton, 2008), on a GPU cuML's UMAP.

Both keep neighbourhoods, not distances: near on the map is near in the embedding, far may be anything.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch

MAX_POINTS = 1500
NUM_COMPONENTS = 50  # principal components that t-SNE works on


def two_dimensions(bank_ND: torch.Tensor, seed: int = 0) -> tuple[npt.NDArray[np.float32], str]:
    """(N, 2) float32 places in 0 .. 1 on both axes, and the method's name. The same again for the same rows.

    Fewer than 5 rows are put on their principal components.
    """
    bank_ND = torch.nn.functional.normalize(bank_ND.float(), dim=1)
    if bank_ND.device.type == "cuda" and len(bank_ND) >= 16:
        places = _umap(bank_ND, seed)
        if places is not None:
            return _within(places), "UMAP"
    rows_ND = bank_ND.cpu().numpy().astype(np.float64)
    if len(rows_ND) < 5:
        return _within(_principal(rows_ND, 2)), "principal components"
    from sklearn.manifold import TSNE

    reduced = _principal(rows_ND, min(NUM_COMPONENTS, *rows_ND.shape))
    tsne = TSNE(
        perplexity=min(30.0, (len(reduced) - 1) / 3),
        init=reduced[:, :2] * _spread(reduced),
        random_state=seed,
    )
    from threadpoolctl import threadpool_limits

    # One thread: on so few rows more of them only wait for one another, and places could differ.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that coincide
        return _within(tsne.fit_transform(reduced.astype(np.float32))), "t-SNE"


def _principal(rows_ND: npt.NDArray[np.float64], num: int) -> npt.NDArray[np.float64]:
    """(N, num) principal components, zero where there are fewer, their signs not the solver's."""
    centred = rows_ND - rows_ND.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    components = np.zeros((len(rows_ND), num))
    kept = min(num, len(s))
    components[:, :kept] = u[:, :kept] * s[:kept]
    strongest = np.take_along_axis(components, np.abs(components).argmax(axis=0)[None], axis=0)
    return components * np.where(strongest < 0, -1.0, 1.0)


def _spread(reduced: npt.NDArray[np.float64]) -> float:
    """t-SNE starts from small places."""
    return 1e-4 / (float(reduced[:, 0].std()) or 1.0)


def _umap(bank_ND: torch.Tensor, seed: int) -> npt.NDArray[np.float32] | None:
    """None where cuML is not installed."""
    try:
        import cupy
        from cuml.manifold import UMAP
    except ImportError:
        return None
    places = UMAP(n_components=2, random_state=seed).fit_transform(cupy.from_dlpack(bank_ND.contiguous()))
    found: npt.NDArray[np.float32] = cupy.asnumpy(cupy.asarray(places))
    return found


def _within(places: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Scaled alike on both axes into 0 .. 1."""
    low, high = places.min(axis=0), places.max(axis=0)
    span = float((high - low).max()) or 1.0
    scaled: npt.NDArray[np.float32] = ((places - (low + high) / 2) / span + 0.5).astype(np.float32)
    return scaled
