"""The flow of a clip store's videos: a clip store inside it, joined by video id, or still to be computed."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from slicfast.config import Config
from slicfast.data.flow import Components, flow_folder
from slicfast.data.store import ClipStore
from slicfast.data.stores.format import HEADER, Int32Array
from slicfast.errors import DataError


class FlowStore:
    """Fields of flow beside the pictures of a store of N videos.

    Attributes:
        components: what is shown of a field.
        faithful: whether it is treated as the published code does (config.FlowConfig).
        name: of the store inside.
        mend: what to do where videos have no flow.
        fields: the clip store of the fields.
        row_N: (N,) int32, each video's row there, -1 where it has no flow.
        num_fields_N: (N,) int64, 0 where it has none.

    Raises:
        DataError: no flow of these components is stored, or it was never finished.
    """

    def __init__(
        self, store: ClipStore, components: Components = "horizontal", *, faithful: bool = False
    ) -> None:
        self.components = components
        self.faithful = faithful
        # Both components hold the horizontal one; but grey pictures are what the published code augments.
        usable = [components] if faithful else [components, *get_args(Components)[1:]]
        found = [name for name in usable if (flow_folder(store.path, name) / HEADER).exists()]
        if not found:
            option = "--flow" if components == "horizontal" else "--flow-both"
            raise DataError(
                f"motion.view=flow needs {flow_folder(store.path, components)}, which is not there;"
                f" make it with 'slicfast prepare ROOT {store.path} {option}'"
            )
        self.fields = ClipStore(flow_folder(store.path, found[0]))
        self.name = self.fields.path.name
        self.mend = f"'slicfast prepare' with --flow completes {self.fields.path}"
        self.row_N = _rows(store, self.fields)
        num_fields_N = self.fields.num_frames[self.row_N].astype(np.int64)
        # A video of which flow was made from another file than its pictures has no flow.
        self.row_N[num_fields_N != store.num_frames.astype(np.int64) - 1] = -1
        self.num_fields_N = np.where(self.row_N >= 0, num_fields_N, 0)

    def has(self, rows: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of these rows of the clip store have flow."""
        found: npt.NDArray[np.bool_] = self.row_N[np.asarray(rows)] >= 0
        return found


class ComputedFlow:
    """Fields that a GPU computes from pictures while clips are loaded (`flow.source=hardware`).

    Nothing of them is stored: a field is known by the picture that it belongs to, as a stored one is, and
    leads to the very next picture of the video.

    Attributes: as FlowStore, without what there is of a store.
    """

    name = "hardware"
    mend = "videos of a single picture have none"

    def __init__(
        self, store: ClipStore, components: Components = "horizontal", *, faithful: bool = False
    ) -> None:
        self.components = components
        self.faithful = faithful
        self.num_fields_N = np.maximum(store.num_frames.astype(np.int64) - 1, 0)

    def has(self, rows: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of these rows of the clip store have flow: those of two pictures or more."""
        found: npt.NDArray[np.bool_] = self.num_fields_N[np.asarray(rows)] > 0
        return found


Flow = FlowStore | ComputedFlow


def _rows(store: ClipStore, fields: ClipStore) -> Int32Array:
    """Where each video's flow is, -1 for none; both stores are in order of id."""
    names, wanted = fields.ids(), store.ids()
    if names == wanted:  # the usual case, and quick
        return np.arange(len(names), dtype=np.int32)
    places = {name: row for row, name in enumerate(names)}
    return np.array([places.get(name, -1) for name in wanted], dtype=np.int32)


def open_flow(store: ClipStore, config: Config) -> Flow | None:
    """The flow that a configuration's motion view needs; None where it needs none.

    Raises: as FlowStore. Whether a machine can compute flow is found out by whoever loads clips of it.
    """
    if config.motion.view != "flow" or config.motion.prob == 0:
        return None
    kind = ComputedFlow if config.flow.source == "hardware" else FlowStore
    return kind(store, config.motion.components, faithful=config.flow.faithful)
