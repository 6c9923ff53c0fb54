"""`slicfast.Encoder`: a trained network that takes video files, or arrays of pictures, and gives vectors.

No clip store is needed: files are decoded by threads while the network computes. The clips are those of the
evaluation (IIC's protocol: evenly spaced, centre crop, mean over clips).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from slicfast.config import Config
from slicfast.data.ahead import Done, work_ahead
from slicfast.data.augment import evaluation_size
from slicfast.data.decoding.ffmpeg import one_line, quiet_ffmpeg
from slicfast.data.sources.file_clips import Piece, read_clips
from slicfast.data.sources.file_sources import ArraySource, ClipPlan, FileSource, Source, VideoFacts
from slicfast.data.stores.format import StoreSettings
from slicfast.device import autocast_dtype, num_cores, resolve_device
from slicfast.engine.checkpoint import encoder_of, find_checkpoint, load_checkpoint, weights_fingerprint
from slicfast.engine.encoder import VideoEncoder
from slicfast.errors import ConfigError, DataError, one_of

logger = logging.getLogger("slicfast")

FeatureKind = Literal["pooled", "projection"]
FEATURE_KINDS = ("pooled", "projection")
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class VideoInput:
    """A video to embed: a file, perhaps a segment of it, or pictures (F, H, W, 3) uint8 RGB."""

    name: str
    source: Any
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True)
class Embedded:
    """What became of a video: (R, D) features with what was learned of it, or the reason there are none.

    R is 1, or the number of windows.
    """

    video: VideoInput
    features: Features = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    facts: VideoFacts = field(default_factory=VideoFacts)
    reason: str = ""


class Encoder:
    """A network with what it must know to be fed: clip length and size, normalisation, precision.

    Attributes:
        network: the VideoEncoder, in evaluation mode on ``device``.
        config: of the run that trained it.
        plan: the clips taken of a video unless asked otherwise.
        source: the checkpoint's file; None where the network was given.
    """

    def __init__(
        self,
        network: VideoEncoder,
        config: Config,
        device: str = "auto",
        *,
        source: Path | None = None,
    ) -> None:
        data = config.data
        self.device = resolve_device(device)
        self.network = network.eval().to(device=self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.config = config
        self.source = source
        resize = config.eval.resize or evaluation_size(data.crop_size)
        if data.crop_size > min(resize):
            raise ConfigError(
                f"eval.resize {resize[0]} x {resize[1]} is smaller than data.crop_size {data.crop_size}"
            )
        self.plan = ClipPlan(
            clip_length=data.clip_length,
            clip_stride=data.clip_stride,
            resize=resize,
            crop_size=data.crop_size,
            short_side=max(StoreSettings().short_side, resize[0]),
            num_clips=config.eval.num_clips,
            max_clips=config.eval.batch_size,
        )
        self._autocast = autocast_dtype(self.device, config.train.precision)
        self._mean_3 = torch.tensor(data.mean, device=self.device) * 255.0
        self._std_3 = torch.tensor(data.std, device=self.device) * 255.0

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str = "auto", *, use_ema: bool = True) -> Encoder:
        """The encoder of a run folder (its best checkpoint, else its last) or of a checkpoint file.

        Args:
            device: auto (a GPU where there is one), cpu or cuda.
            use_ema: with the averaged weights, where the run kept some (``ema.decay``).

        Raises:
            DataError, RunError: no checkpoint there, or not one of slicfast.
            ConfigError, MachineError: an unknown device, or one that this machine lacks.
        """
        file = find_checkpoint(path)
        checkpoint = load_checkpoint(file)
        config = Config.from_dict(checkpoint.config, source=str(file))
        return cls(encoder_of(checkpoint, file, use_ema=use_ema), config, device, source=file)

    def fingerprint(self, features: FeatureKind = "projection") -> str:
        """A checksum of the weights that make these features: 16 hexadecimal digits."""
        state = self.network.state_dict()
        if features == "pooled":
            state = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
        return weights_fingerprint(state)

    def plan_for(self, **changes: Any) -> ClipPlan:
        """The plan with other values; None leaves one as it is. Raises ConfigError for one out of range."""
        plan = replace(self.plan, **{key: value for key, value in changes.items() if value is not None})
        for name in ("num_clips", "short_side", "fps", "window_s", "hop_s"):
            value = getattr(plan, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0; got {value}")
        if plan.hop_s is not None and plan.window_s is None:
            raise ConfigError("hop_s is the distance of windows: give window_s, their length, too")
        return plan

    def embed(
        self,
        videos: Any,
        features: FeatureKind = "pooled",
        num_clips: int | None = None,
        *,
        short_side: int | None = None,
        fps: float | None = None,
        skip_unreadable: bool = False,
        num_threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Features:
        """Embed videos; one that is cut into stores and evaluated gets the same vector, JPEG's loss apart.

        Args:
            videos: paths of files that FFmpeg reads, or arrays of pictures (F, H, W, 3) uint8 RGB; one path
                alone is a list of one.
            features: ``pooled`` (N, F), the ones to use, or ``projection``.
            num_clips: a video, evenly spaced; None: as the run evaluates (10).
            short_side: pixels to which pictures are scaled first: that of the training store.
            fps: resample to so many pictures a second; None: every picture, as prepare does.
            skip_unreadable: a video that cannot be read gets a NaN row and a warning instead of an error.
            num_threads: decoding; None: a core each.
            progress: called with the number of videos done.

        Returns:
            (N, D) float32 in the order given.

        Raises:
            DataError: a video cannot be read; the message names it and the reason.
            ConfigError: an unknown kind of features, a number out of range.
        """
        if isinstance(videos, str | os.PathLike):
            videos = [videos]
        inputs = [_as_input(video, number) for number, video in enumerate(videos)]
        place = {id(video): number for number, video in enumerate(inputs)}
        plan = self.plan_for(num_clips=num_clips, short_side=short_side, fps=fps)
        rows: list[Features | None] = [None] * len(inputs)
        done = 0
        with closing(self.embed_each(inputs, features, plan, num_threads=num_threads)) as results:
            for result in results:
                done += 1
                if result.reason and not skip_unreadable:
                    raise DataError(f"{result.video.name}: {result.reason}")
                if result.reason:
                    logger.warning("%s: %s; its row is NaN", result.video.name, result.reason)
                else:
                    rows[place[id(result.video)]] = result.features[0]
                if progress is not None:
                    progress(done)
        width = next((len(row) for row in rows if row is not None), self.num_features(features))
        missing = np.full(width, np.nan, dtype=np.float32)
        return np.stack([missing if row is None else row for row in rows] or [missing[:0]]).reshape(-1, width)

    def num_features(self, features: FeatureKind = "pooled") -> int:
        """D of a kind of features."""
        if features == "projection":
            return self.config.model.projection_dim
        return int(cast(int, self.network.backbone.num_features))

    def embed_each(
        self,
        videos: Iterable[VideoInput],
        features: FeatureKind = "pooled",
        plan: ClipPlan | None = None,
        *,
        num_threads: int | None = None,
    ) -> Generator[Embedded]:
        """Embed a stream of videos in bounded memory; results come as they are done, in any order.

        Raises ConfigError for an unknown kind of features; what is wrong with a video is in its result.
        """
        if features not in FEATURE_KINDS:
            raise ConfigError(one_of("features", features, FEATURE_KINDS))
        plan = plan or self.plan
        num_threads = num_threads or num_cores()

        def read(video: VideoInput, beat: Callable[[], None]) -> Generator[Piece, None, VideoFacts]:
            return read_clips(_open(video, plan, beat), plan)

        gathered = _Gathered(self, features, plan.max_clips)
        ahead = work_ahead(videos, read, num_threads=num_threads, max_ready=num_threads + 2)
        # Said once and for all threads: each of them would put back what another had changed.
        with quiet_ffmpeg(), closing(ahead) as parts:
            for video, part in parts:
                if isinstance(part, Done):
                    yield from gathered.finish(video, part)
                else:
                    yield from gathered.add(video, part)
        yield from gathered.flush()

    @torch.inference_mode()
    def forward(self, pieces: Sequence[Piece], features: FeatureKind) -> torch.Tensor:
        """(C, D) float32 features of all clips of some pieces, on the CPU."""
        clips_NTHWC = torch.cat(
            [torch.from_numpy(p.pictures).to(self.device)[torch.from_numpy(p.index_CT)] for p in pieces]
        )
        clips_NCTHW = ((clips_NTHWC.float() - self._mean_3) / self._std_3).permute(0, 4, 1, 2, 3)
        with torch.autocast(self.device.type, dtype=self._autocast, enabled=self._autocast is not None):
            wanted = self.network.forward_features if features == "pooled" else self.network.forward
            found: torch.Tensor = wanted(clips_NCTHW)
        return found.float().cpu()


class _Gathered:
    """Pieces until they fill a batch, and the sums of the videos under way."""

    def __init__(self, encoder: Encoder, features: FeatureKind, batch_size: int) -> None:
        self._encoder, self._features, self._batch_size = encoder, features, batch_size
        self._pieces: list[tuple[VideoInput, Piece]] = []
        self._num_clips = 0
        self._ended: list[tuple[VideoInput, Done[VideoFacts]]] = []
        self._sums: dict[int, tuple[list[torch.Tensor], list[int]]] = {}  # by id() of the video

    def add(self, video: VideoInput, piece: Piece) -> Generator[Embedded]:
        if self._num_clips + len(piece.row_C) > self._batch_size:
            yield from self.flush()
        self._pieces.append((video, piece))
        self._num_clips += len(piece.row_C)

    def finish(self, video: VideoInput, done: Done[VideoFacts]) -> Generator[Embedded]:
        self._ended.append((video, done))
        if self._num_clips >= self._batch_size:
            yield from self.flush()

    def flush(self) -> Generator[Embedded]:
        """Compute what has gathered and hand over the videos that are complete."""
        if self._pieces:
            features_CD = self._encoder.forward([piece for _, piece in self._pieces], self._features)
            at = 0
            for video, piece in self._pieces:
                rows, counts = self._sums.setdefault(id(video), ([], []))
                for row in piece.row_C.tolist():
                    if row == len(rows):
                        rows.append(features_CD[at].clone())
                        counts.append(1)
                    else:
                        rows[row] += features_CD[at]
                        counts[row] += 1
                    at += 1
            self._pieces.clear()
            self._num_clips = 0
        ended, self._ended = self._ended, []
        for video, done in ended:
            rows, counts = self._sums.pop(id(video), ([], []))
            if done.summary is None:
                yield Embedded(video, reason=_reason(done.error))
            else:
                mean_RD = torch.stack(rows) / torch.tensor(counts)[:, None]
                yield Embedded(video, mean_RD.numpy(), done.summary)


def _reason(error: Exception | None) -> str:
    """One line; whatever a decoder meets in a file is that file's fault and must not end the others."""
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    return f"{type(error).__name__}: {one_line(str(error))}"


def _as_input(video: Any, number: int) -> VideoInput:
    if isinstance(video, VideoInput):
        return video
    if isinstance(video, str | os.PathLike):
        return VideoInput(str(os.fspath(video)), Path(video))
    return VideoInput(f"video {number} of those given", video)


def _open(video: VideoInput, plan: ClipPlan, beat: Callable[[], None]) -> Source:
    if not isinstance(video.source, str | os.PathLike):
        return ArraySource(video.source, plan)
    path = Path(video.source)
    if not path.exists():
        raise DataError("no such file")
    if path.is_dir():
        raise DataError("it is a folder; name the videos in it")
    return FileSource(path, plan, video.start_s, video.end_s, beat)
