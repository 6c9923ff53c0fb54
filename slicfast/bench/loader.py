"""`slicfast bench loader`: what a clip costs from stored JPEG to normalised tensor, a stage at a time.

Each stage is the loader with one more augmentation drawn; colour in both modes. Beside it, on a CPU, stand
decoding alone and the same augmentations written with DALI's operators of those names, as one would first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from slicfast.bench.dali_graphs import PeerGraphs
from slicfast.bench.harness import Measurement, measure_in_turn
from slicfast.bench.step import torch_threads
from slicfast.bench.texture import texture_store
from slicfast.bench.texture_flow import add_flow
from slicfast.config import AugmentConfig, Config
from slicfast.data.decoding.jpeg_clips import JpegClip
from slicfast.data.decoding.mixed import jpegs_by_clip
from slicfast.data.loader import ClipLoader
from slicfast.data.reading import ClipReader
from slicfast.data.recycling import ScratchPool
from slicfast.data.requests import Requests, Role, View, make_requests
from slicfast.data.store import ClipStore
from slicfast.data.stores.flow import open_flow
from slicfast.device import num_cores, require_dali, resolve_device
from slicfast.errors import DataError

COLUMNS = ("from stored JPEG to", "CPU ms a clip", "wall ms a clip", "clips/s")
STAGES: dict[str, dict[str, Any]] = {
    "clips: crop, resize, flip": {"jitter_prob": 0.0, "grey_prob": 0.0, "blur_prob": 0.0},
    "clips: and colour, fast": {"colour": "fast", "blur_prob": 0.0},
    "clips: and colour, exact": {"colour": "exact", "blur_prob": 0.0},
    "clips: and blur, all of it, fast": {"colour": "fast"},
    "clips: and blur, all of it, exact": {"colour": "exact"},
}
WHOLE = "clips: and blur, all of it, exact"
_NUM_BATCHES = 4
_NUM_SAMPLED = 100  # videos whose bytes are counted


def bench_loader(
    config: Config,
    *,
    store: ClipStore | None = None,
    num_threads: int = 1,
    batch_size: int = 16,
    num_runs: int = 7,
) -> dict[str, Any]:
    """Cost of loading clips as this configuration has them; `num_threads` hold for loader and torch.

    Args:
        store: None: one is made of moving textures, 171 x 128 pixels, JPEG quality 90.
        num_threads: 0: a core each.
        batch_size: clips; a run loads four batches.
        num_runs: measured runs of each stage, in turn, after one that is not.

    Returns:
        The settings, `bytes_per_frame`, and `stages`, each with `what`, `clips_per_second` and milliseconds
        a clip, `cpu_ms` and `wall_ms`, with the quartiles of the runs.

    Raises:
        MachineError: DALI is missing, or a GPU is asked for and there is none.
        DataError: an empty store.
    """
    require_dali()
    with tempfile.TemporaryDirectory(prefix="slicfast-bench-") as folder:
        if store is None:
            store = texture_store(Path(folder) / "store")
            if config.motion.view == "flow" and config.flow.source == "stored":
                add_flow(store, config.motion.components)
        if not len(store):
            raise DataError(f"the clip store at {store.path} is empty: there is nothing to load")
        with torch_threads(num_threads):
            return _bench(config, store, num_threads or num_cores(), batch_size, num_runs)


def _bench(
    config: Config, store: ClipStore, num_threads: int, batch_size: int, num_runs: int
) -> dict[str, Any]:
    device = resolve_device(config.train.device)
    batches = random_batches(config, store, batch_size)
    num_clips = batch_size * len(batches)
    flow = open_flow(store, config)

    def loads(augment: AugmentConfig | None) -> Callable[[], object]:
        loader = ClipLoader(
            store,
            config.data,
            augment=augment,
            motion=config.motion,
            flow=flow,
            device=device,
            num_threads=num_threads,
            max_batch=batch_size,
        )

        def run() -> None:
            for _ in loader.load(batches):
                pass

        return run

    reader = ClipReader(store, config.data.clip_length, flow=flow)
    pictures = [reader.read(batch).pictures for batch in batches]
    jpegs = [[jpeg for jpeg in batch if isinstance(jpeg, np.ndarray)] for batch in pictures]
    is_jpeg = store.settings.codec == "jpeg"  # DALI's own graphs are written for it
    on_cpu = device.type == "cpu"
    peer = PeerGraphs(config, store, batches, jpegs, num_threads) if on_cpu and is_jpeg else None
    runs: dict[str, Callable[[], object]] = {}
    if on_cpu and is_jpeg:
        runs["pixels: decode"] = _decoding(jpegs, config.data.clip_length, num_threads)
    for name, changes in STAGES.items():
        runs[name] = loads(config.augment.model_copy(update=changes))
    runs["clips, evaluation"] = loads(None)
    if peer is not None:
        runs["DALI's operators: decode, resize"] = peer.resize()
        runs["DALI's operators: all"] = peer.naive()
    costs = measure_in_turn(runs, num_runs=num_runs, num_warmup=1)
    return {
        "device": str(device),
        "num_threads": num_threads,
        "stored": [int(np.median(store.width)), int(np.median(store.height))],
        "clip": [config.data.clip_length, config.data.crop_size, config.data.crop_size],
        "motion_view": config.motion.view,
        "batch_size": batch_size,
        "bytes_per_frame": _bytes_a_frame(store),
        "num_runs": num_runs,
        "stages": [_stage(what, cost, num_clips) for what, cost in costs.items()],
    }


def _decoding(jpegs: list[list[Any]], clip_length: int, num_threads: int) -> Callable[[], object]:
    """A function that decodes batches of pictures as the loader does, a clip a thread."""
    scratch = ScratchPool()
    clips = [JpegClip(clip, scratch) for batch in jpegs for clip in jpegs_by_clip(batch, clip_length)]
    pool = ThreadPoolExecutor(num_threads) if num_threads > 1 else None

    def decode(clip: JpegClip) -> None:
        for _ in clip:
            pass

    def run() -> None:
        for _ in map(decode, clips) if pool is None else pool.map(decode, clips):
            pass

    return run


def _bytes_a_frame(store: ClipStore) -> int:
    rows = np.unique(np.linspace(0, len(store) - 1, _NUM_SAMPLED).astype(np.int64))
    num_bytes = sum(store.layout(row).bounds[-1] for row in rows.tolist())
    return round(num_bytes / int(store.num_frames[rows].sum()))


def _stage(what: str, cost: Measurement, num_clips: int) -> dict[str, Any]:
    def a_clip(values: list[float]) -> list[float]:
        return [value / num_clips for value in values]

    return {
        "what": what,
        "cpu_ms": cost.cpu_ms / num_clips,
        "cpu_ms_quartiles": a_clip(cost.cpu_ms_quartiles),
        "wall_ms": cost.wall_ms / num_clips,
        "wall_ms_quartiles": a_clip(cost.wall_ms_quartiles),
        "clips_per_second": 1e3 * num_clips / cost.wall_ms,
    }


def table_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The result as rows under COLUMNS."""
    return [
        (
            stage["what"],
            f"{stage['cpu_ms']:.1f} ({stage['cpu_ms_quartiles'][0]:.1f}-{stage['cpu_ms_quartiles'][1]:.1f})",
            f"{stage['wall_ms']:.1f}",
            f"{stage['clips_per_second']:.0f}",
        )
        for stage in result["stages"]
    ]


def random_batches(config: Config, store: ClipStore, batch_size: int) -> list[Requests]:
    """Training requests; views in the shares that a training step has."""
    rng = np.random.default_rng(0)
    motion = {"difference": View.DIFFERENCE, "flow": View.FLOW}.get(config.motion.view)
    share = config.motion.prob * 2 / 3 if motion is not None else 0.0
    batches = []
    for _ in range(_NUM_BATCHES):
        video_N = rng.integers(0, len(store), batch_size)
        last_N = np.maximum(store.num_frames[video_N].astype(np.int64) - config.data.clip_span, 0)
        start_N = rng.integers(0, last_N + 1)
        view_N = np.where(rng.random(batch_size) < share, motion or View.RGB, View.RGB)
        batches.append(
            make_requests(
                video_N,
                np.where(view_N == View.FLOW, np.minimum(start_N, np.maximum(last_N - 1, 0)), start_N),
                stride=config.data.clip_stride,
                view_N=view_N,
                role=Role.ANCHOR,
                seed_N=rng.integers(0, 2**64, batch_size, dtype=np.uint64),
            )
        )
    return batches
