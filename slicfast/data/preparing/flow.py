"""The optical flow of a store's videos, into a clip store of its own inside it: prepared as the videos were.

So a kill costs at most the video in hand, a second run does only what is missing, and what a clip store
guards against damage guards the flow too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from slicfast.data.catalog import Catalog
from slicfast.data.flow import CONTENT, Components, flow_folder
from slicfast.data.prepare import PrepareReport, Progress, prepare
from slicfast.data.preparing.estimate import spread
from slicfast.data.preparing.workers import LIMIT_S, STALL_S
from slicfast.data.store import ClipStore, StoreSettings
from slicfast.errors import DataError


def prepare_flow(
    catalog: Catalog,
    store_path: str | Path,
    components: Components = "horizontal",
    *,
    workers: int = 0,
    limit: int | None = None,
    retry: bool = False,
    progress: Progress | None = None,
    stall_s: float = STALL_S,
    limit_s: float = LIMIT_S,
) -> PrepareReport:
    """Compute the flow of the catalog's videos that the clip store at `store_path` holds.

    The files are decoded once more: flow is computed from film, not from stored pictures. Videos of a
    single picture have none and are passed over.

    Args, interrupts and errors: those of `prepare`.

    Raises:
        DataError: also where there is no finished store, or it holds none of the videos.
    """
    store_path = Path(store_path)
    store = ClipStore(store_path)
    num_frames = dict(zip(store.ids(), store.num_frames.tolist(), strict=True))
    moving = [video for video in spread(catalog.videos, limit) if num_frames.get(video.id, 0) > 1]
    if not moving:
        raise DataError(f"none of the videos is in the clip store at {store_path} with two pictures or more")
    return prepare(
        replace(catalog, videos=tuple(moving)),
        flow_folder(store_path, components),
        StoreSettings(
            short_side=store.settings.short_side,
            quality=store.settings.quality,
            fps=store.settings.fps,
            content=CONTENT[components],
        ),
        workers=workers,
        retry=retry,
        progress=progress,
        stall_s=stall_s,
        limit_s=limit_s,
    )


def outdated_flow(store_path: str | Path, changed: Sequence[str]) -> list[Path]:
    """The stores of flow inside a clip store that hold any of these videos, whose pictures were made anew."""
    found = []
    for components in CONTENT:
        folder = flow_folder(Path(store_path), components)
        with suppress(DataError):  # none there, or none finished
            if not set(changed).isdisjoint(ClipStore(folder).ids()):
                found.append(folder)
    return found
