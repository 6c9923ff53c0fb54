"""Features of the videos compared: each view of a clip is decoded once, for all networks and protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from slicfast.data.loader import ClipLoader
from slicfast.data.requests import Requests
from slicfast.data.sampling import evenly_spaced
from slicfast.data.views import in_all_crops, ten_crops, windows
from slicfast.distributed import Ranks
from slicfast.engine.embedding import Extractor, average_by_video, encoder_extractor, evaluation_loader
from slicfast.evaluation.baselines import baseline_features
from slicfast.evaluation.protocol import Rows
from slicfast.evaluation.subject import Subject
from slicfast.progress import track

Banks = dict[str, torch.Tensor]  # kind of features -> (V, D) float32

# One random window is taken of a training video in each epoch of a linear probe: of these, evenly chosen.
MAX_TRAINING_WINDOWS = 10


@dataclass(frozen=True)
class Split:
    """Mean features of the query videos and of the gallery videos."""

    query: Banks
    gallery: Banks


@dataclass(frozen=True)
class Windows:
    """Features of single windows: (M, D) on the CPU, those of video v from first_V[v] to first_V[v + 1]."""

    features_MD: torch.Tensor
    first_V: npt.NDArray[np.int64]


class Features:
    """What the protocols compare, computed when first asked for and then kept.

    Kinds: the trained and the untrained network's pooled features and projection, and plain pictures.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.rows = np.union1d(subject.query_rows, subject.gallery_rows)  # each video once
        self._num_frames = subject.store.num_frames[self.rows]
        self._query_place = torch.from_numpy(np.searchsorted(self.rows, subject.query_rows))
        self._gallery_place = torch.from_numpy(np.searchsorted(self.rows, subject.gallery_rows))

    @cached_property
    def iic(self) -> Split:
        """IIC's clips: ten a video, evenly spaced, the whole picture resized and its centre cut out."""
        config = self.subject.config
        clips = evenly_spaced(
            self.rows,
            self._num_frames,
            config.eval.num_clips,
            clip_span=config.data.clip_span,
            stride=config.data.clip_stride,
        )
        loader = evaluation_loader(self.subject.store, config, self.subject.device)
        return self._split(self._embed("ten clips", loader, clips, self._extractor))

    @cached_property
    def coclr(self) -> Split:
        """CoCLR's windows, centre crop, each split centred on its own mean."""
        split = self._split(self._coclr[0])
        return Split(_centred(split.query), _centred(split.gallery))

    @property
    def training_windows(self) -> Windows:
        """The trained network's pooled features of the gallery's windows, at most ten a video."""
        return self._coclr[1]

    @cached_property
    def _coclr(self) -> tuple[Banks, Windows]:
        clips = self._windows(self.rows)
        place = np.searchsorted(self.rows, clips["video"])
        chosen = _spread(place, MAX_TRAINING_WINDOWS) & np.isin(place, self._gallery_place.numpy())
        recorder = _Recorder(self._extractor, "trained_pooled", chosen)
        loader = evaluation_loader(self.subject.store, self.subject.config, self.subject.device, ten_crops)
        banks = self._embed("windows", loader, clips, recorder)
        counts = np.bincount(place[chosen], minlength=len(self.rows))[self._gallery_place.numpy()]
        return banks, Windows(recorder.features, np.concatenate([[0], np.cumsum(counts)]))

    def ten_crop_mean(self, extractor: Extractor, ranks: Ranks = Ranks()) -> Banks:
        """The mean over all windows and ten crops of the query videos, of whatever is computed of a clip."""
        rows = self.subject.query_rows
        clips = in_all_crops(self._windows(rows))
        loader = evaluation_loader(self.subject.store, self.subject.config, self.subject.device, ten_crops)
        return self._embed("ten crops", loader, clips, extractor, rows, ranks)

    def _windows(self, rows: Rows) -> Requests:
        data, num_frames = self.subject.config.data, self.subject.store.num_frames[rows]
        return windows(rows, num_frames, clip_span=data.clip_span, stride=data.clip_stride)

    def _embed(
        self,
        what: str,
        loader: ClipLoader,
        clips: Requests,
        extractor: Extractor,
        rows: Rows | None = None,
        ranks: Ranks = Ranks(),
    ) -> Banks:
        place = np.searchsorted(self.rows if rows is None else rows, clips["video"])
        subject = self.subject
        with track(f"Embedding {what}", -(-len(clips) // ranks.size), unit="clips") as bar:
            return average_by_video(
                extractor,
                loader,
                clips,
                place,
                subject.config,
                subject.device,
                ranks=ranks,
                progress=bar.update,
            )

    def _split(self, banks: Banks) -> Split:
        return Split(
            {name: bank[self._query_place.to(bank.device)] for name, bank in banks.items()},
            {name: bank[self._gallery_place.to(bank.device)] for name, bank in banks.items()},
        )

    @cached_property
    def _extractor(self) -> Extractor:
        """All kinds of features of the same decoded clips."""
        subject = self.subject
        extractors: list[Extractor] = [
            encoder_extractor(subject.encoder(trained=True), subject.device, subject.autocast, "trained_"),
            encoder_extractor(subject.encoder(trained=False), subject.device, subject.autocast, "untrained_"),
            baseline_features,
        ]

        def extract(clips_NCTHW: torch.Tensor) -> Mapping[str, torch.Tensor]:
            return {name: found for extractor in extractors for name, found in extractor(clips_NCTHW).items()}

        return extract


class _Recorder:
    """An extractor that also keeps one kind of features of some of the clips, which come in order."""

    def __init__(self, extractor: Extractor, name: str, chosen_M: npt.NDArray[np.bool_]) -> None:
        self._extractor, self._name = extractor, name
        self._chosen_M = torch.from_numpy(chosen_M)
        self._kept: list[torch.Tensor] = []
        self._done = 0

    def __call__(self, clips_NCTHW: torch.Tensor) -> Mapping[str, torch.Tensor]:
        found = self._extractor(clips_NCTHW)
        chosen_N = self._chosen_M[self._done : self._done + len(clips_NCTHW)]
        self._kept.append(found[self._name].float().cpu()[chosen_N])
        self._done += len(clips_NCTHW)
        return found

    @property
    def features(self) -> torch.Tensor:
        return torch.cat(self._kept)


def _spread(place_M: npt.NDArray[np.integer], most: int) -> npt.NDArray[np.bool_]:
    """(M,) at most so many of each video's clips, evenly; the clips are in the order of their videos."""
    count_V = np.bincount(place_M)
    number_M = np.arange(len(place_M)) - (np.cumsum(count_V) - count_V)[place_M]
    kept_M = np.minimum(count_V, most)[place_M]
    # Clip j of n is the k-th of m chosen where j is the first at or past k * n / m.
    chosen: npt.NDArray[np.bool_] = (number_M * kept_M) % count_V[place_M] < kept_M
    return chosen


def _centred(banks: Banks) -> Banks:
    return {name: bank - bank.mean(dim=0) for name, bank in banks.items()}
