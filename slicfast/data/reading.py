"""Requests to stored bytes, with damaged clips replaced: by whom is a function of the damaged video alone."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from slicfast.data.augment import uniforms
from slicfast.data.requests import Requests, Role, View, frame_indices
from slicfast.data.sources.choice import ClipSource, StoredClips
from slicfast.data.store import ClipStore, DamagedClip
from slicfast.data.stores.flow import ComputedFlow, Flow, FlowStore
from slicfast.data.stores.parts import FlowPictures, Stored
from slicfast.errors import RunError

logger = logging.getLogger("slicfast")

NUM_SUBSTITUTES = 16  # tried before giving up
NUM_WINDOWS = 4  # of the same video, tried first for an evaluation clip
# Clips. The share allowed is of at least so many; else one bad clip in the first batch would stop a run.
SHARE_WINDOW = 1000


@dataclass(frozen=True)
class Reading:
    """The bytes of a batch.

    Attributes:
        asked: (N,) requests as they came.
        requests: (N,) requests as they were read, after substitution.
        pictures: what is stored of each, clip after clip: T JPEGs, or one cut of a video, or what is held.
        damage: what was wrong with each clip that was replaced.
    """

    asked: Requests
    requests: Requests
    pictures: list[Stored]
    damage: list[DamagedClip] = field(default_factory=list)


class ClipReader:
    """Reads clips from a store, and other clips in place of damaged ones.

    A training clip is replaced by one of another candidate video, the same for every clip of the damaged
    video, in every run; an evaluation clip first by another window of its own video. Start, stride, view,
    role and seed stay, the start moved back where the substitute is shorter.

    Args:
        candidates: rows of videos that may stand in; None: all of the store.
        flow: where clips of the view FLOW are read, or of which pictures they are to be computed.
        source: where all others are read; None: the store.
        num_threads: that read side by side where a source takes long.
    """

    def __init__(
        self,
        store: ClipStore,
        clip_length: int,
        candidates: npt.ArrayLike | None = None,
        flow: Flow | None = None,
        source: ClipSource | None = None,
        num_threads: int = 1,
    ) -> None:
        self._store = store
        self._flow = flow
        self._source = source or StoredClips(store)
        self._fields = StoredClips(flow.fields) if isinstance(flow, FlowStore) else None
        self._clip_length = clip_length
        rows = np.arange(len(store)) if candidates is None else np.asarray(candidates)
        self._candidates = rows.astype(np.int64)
        many = num_threads > 1 and self._source.takes_long
        self._pool = ThreadPoolExecutor(num_threads, "slicfast-read") if many else None
        self._undecodable: dict[tuple[int, ...], DamagedClip] = {}

    def read(self, requests_N: Requests) -> Reading:
        """The bytes of N clips. Raises RunError where a clip finds no sound substitute."""
        reading = Reading(requests_N, requests_N.copy(), [])
        single = [requests_N[n : n + 1] for n in range(len(requests_N))]
        each = map(self._tried, single) if self._pool is None else self._pool.map(self._tried, single)
        for n, found in enumerate(each):
            if isinstance(found, DamagedClip):
                reading.damage.append(found)
                reading.requests[n : n + 1], found = self._substitute(single[n], found)
            reading.pictures.extend(found)
        return reading

    def _tried(self, request: Requests) -> list[Stored] | DamagedClip:
        try:
            return self._pictures(request)
        except DamagedClip as damage:
            return damage

    def reject(self, request: Requests) -> None:
        """Treat a clip, a (1,) request, as damaged from now on: its bytes are as stored but do not decode."""
        video = int(request["video"][0])
        reason = "its pictures are as they were stored but do not decode"
        self._undecodable[_key(request)] = DamagedClip(self._store.id(video), -1, reason)

    def _pictures(self, request: Requests) -> list[Stored]:
        video = int(request["video"][0])
        if self._undecodable and (damage := self._undecodable.get(_key(request))) is not None:
            raise damage
        if request["view"][0] != View.FLOW:
            return [*self._source.stored(video, self._indices(self._store.num_frames[video], request))]
        assert self._flow is not None, "flow was asked of a loader without it"
        if isinstance(self._flow, ComputedFlow):
            return [self._between(self._flow, video, request)]
        assert self._fields is not None
        row = int(self._flow.row_N[video])
        if row < 0:
            raise DamagedClip(self._store.id(video), -1, "it has no flow")
        try:
            return [*self._fields.stored(row, self._indices(self._flow.fields.num_frames[row], request))]
        except DamagedClip as damage:
            raise DamagedClip(damage.video_id, damage.frame, f"flow: {damage.reason}") from None

    def _between(self, flow: ComputedFlow, video: int, request: Requests) -> FlowPictures:
        """The pictures that each field of a clip belongs to and leads to."""
        if not flow.num_fields_N[video]:
            raise DamagedClip(self._store.id(video), -1, "it has no flow")
        before_T = self._indices(flow.num_fields_N[video], request)
        pictures_K = np.union1d(before_T, before_T + 1)
        stored = self._source.stored(video, pictures_K)
        return FlowPictures(stored, np.searchsorted(pictures_K, before_T), flow.components)

    def _indices(self, num_frames: int, request: Requests) -> npt.NDArray[np.int64]:
        indices_T: npt.NDArray[np.int64] = frame_indices(request, self._clip_length, num_frames)[0]
        return indices_T

    def _substitute(self, request: Requests, damage: DamagedClip) -> tuple[Requests, list[Stored]]:
        for substitute in self._chain(request):
            try:
                return substitute, self._pictures(substitute)
            except DamagedClip:
                continue
        raise RunError(f"{damage}; so are all clips that might stand in for it: {self._source.mend}")

    def _chain(self, request: Requests) -> list[Requests]:
        """The clips that may stand in for one, in the order in which they are tried."""
        video, span = int(request["video"][0]), (self._clip_length - 1) * int(request["stride"][0])
        u = uniforms(np.array([video], dtype=np.uint64), NUM_SUBSTITUTES + NUM_WINDOWS)[0]
        chain = []

        def add(row: int, start: int | None) -> None:
            substitute = request.copy()
            substitute["video"] = row
            last = max(self._length(row, request) - 1 - span, 0)
            substitute["start"] = min(int(request["start"][0]), last) if start is None else start
            chain.append(substitute)

        if request["role"][0] == Role.EVAL:
            num_starts = max(self._length(video, request) - span, 1)
            for place in u[NUM_SUBSTITUTES:]:
                add(video, int(place * num_starts))
        for place in u[:NUM_SUBSTITUTES]:
            row = int(self._candidates[int(place * len(self._candidates))])
            if row != video:
                add(row, None)
        return chain

    def _length(self, video: int, request: Requests) -> int:
        """Pictures, or fields of flow, that a video has for such a request."""
        if self._flow is not None and request["view"][0] == View.FLOW:
            return int(self._flow.num_fields_N[video])
        return int(self._store.num_frames[video])


def _key(request: Requests) -> tuple[int, ...]:
    is_flow = request["view"][0] == View.FLOW
    return int(request["video"][0]), int(request["start"][0]), int(request["stride"][0]), int(is_flow)


class DamageTally:
    """Counts replaced clips, names each damaged video once, and stops a run in which they are too many.

    Attributes:
        num_clips: clips handed over.
        num_replaced: of these, substitutes.
        replaced: clips replaced of each video id.
    """

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self.num_clips = 0
        self.num_replaced = 0
        self.replaced: Counter[str] = Counter()

    def add(self, reading: Reading) -> None:
        """Count a batch. Raises RunError, naming the worst videos, past the share allowed."""
        self.num_clips += len(reading.requests)
        self.num_replaced += len(reading.damage)
        for damage in reading.damage:
            if damage.video_id not in self.replaced:
                logger.warning("damaged clip replaced: %s", damage)
            self.replaced[damage.video_id] += 1
        if self.num_replaced > self._max_share * max(self.num_clips, SHARE_WINDOW):
            worst = ", ".join(f"'{name}' ({count})" for name, count in self.replaced.most_common(3))
            raise RunError(
                f"{self.num_replaced} of {self.num_clips} clips were damaged and replaced, more than"
                f" data.max_bad_share {self._max_share:g} allows (of at least {SHARE_WINDOW}); worst: {worst}"
                ". Prepare the store again, or raise data.max_bad_share"
            )
