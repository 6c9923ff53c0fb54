"""Where clips are read (`data.source`): in the store, the original files, or memory; chosen here, once.

What comes out has one form for all that follows: JPEGs, a cut of a video, or pictures already decoded.
"""

from __future__ import annotations

import logging
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import DataConfig
from slicfast.data.decoding import vp9_header
from slicfast.data.decoding.jpeg_header import HeaderCheck
from slicfast.data.sources.films import FilmClips
from slicfast.data.sources.resident import HeldClips, Residents, plan_residents
from slicfast.data.store import ClipStore
from slicfast.data.stores.parts import DamagedClip, StoredPictures
from slicfast.errors import ConfigError

logger = logging.getLogger("slicfast")


class ClipSource(Protocol):
    """A store's clips as bytes or pictures.

    Attributes:
        takes_long: whether it pays to read several clips side by side.
        mend: what to do where hardly any of them can be had.
    """

    @property
    def takes_long(self) -> bool: ...

    @property
    def mend(self) -> str: ...

    def stored(self, video: int, indices_T: npt.NDArray[np.int64]) -> list[StoredPictures]:
        """Some pictures of a row of the store: T JPEGs, or one thing that holds them all.

        Raises:
            DamagedClip: they cannot be had, or are not what they were.
        """
        ...


class StoredClips:
    """Clips as the store holds them, their headers checked before a decoder sees them."""

    takes_long = False

    def __init__(self, store: ClipStore) -> None:
        self._store = store
        self._headers = HeaderCheck()
        self.mend = f"the clip store at {store.path} is damaged, prepare it again"

    def stored(self, video: int, indices_T: npt.NDArray[np.int64]) -> list[StoredPictures]:
        store = self._store
        width, height = int(store.width[video]), int(store.height[video])
        if store.settings.codec == "vp9":
            cut = store.cut(video, indices_T)
            if (wrong := vp9_header.fault(cut.data, width, height)) is not None:
                raise DamagedClip(store.id(video), int(indices_T.min()), wrong)
            return [cut]
        pictures = store.frames(video, indices_T)
        for index, picture in zip(indices_T, pictures, strict=True):
            fault = self._headers.fault(picture, width, height)
            if fault is not None:
                raise DamagedClip(store.id(video), int(index), fault)
        return list(pictures)


def open_source(
    store: ClipStore,
    config: DataConfig,
    *,
    rows: npt.NDArray[np.integer] | None,
    device: torch.device,
    num_threads: int,
) -> ClipSource:
    """The source that `data.source` names, or for `auto` the quickest that there is room for.

    Args:
        rows: the videos to be read again and again, of which memory is made; None: none in particular, so
            that only what another loader of this store holds already is taken from memory.
        device: where clips are wanted.
        num_threads: that decode what is to be held.

    Raises:
        ConfigError: the store has no files for `data.source=files`.
        MachineError: `data.source=resident`, and there is no room.
    """
    scanned = store.settings.codec == "files"
    if config.source == "files" or (config.source == "auto" and scanned):
        return FilmClips(store, config.files, upright=device.type == "cuda")
    if scanned:
        raise ConfigError(
            f"data.source={config.source}: the clip store at {store.path} was prepared with --codec files and"
            " holds no pictures; set data.source=files, or prepare with another codec"
        )
    base = StoredClips(store)
    if config.source == "store":
        return base
    residents = Residents.of(store)
    if rows is not None and residents.nothing_held:
        plan = plan_residents(store, rows, config, device)
        if plan is None:
            logger.info("data.source=auto: read from the store, as pictures do not fit into memory")
            return base
        residents.fill(plan, store, rows, base, device, num_threads)
    if residents.pictures is not None:
        return HeldClips(residents.pictures, base)
    return base if residents.store is None else StoredClips(residents.store)
