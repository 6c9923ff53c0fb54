"""`slicfast bench train`: training on real clips beside the same training on batches that are there already.

The ratio of the two is what the loading costs: 1 where it hides behind the step. Both are the run's own loop,
in turn, so that they meet the same moods of the machine.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import torch

from slicfast.bench.ceilings import DTYPES, count_flops, measure_ceilings
from slicfast.bench.harness import Measurement, measure
from slicfast.config import Config
from slicfast.data.loader import ClipBatch
from slicfast.data.requests import Requests
from slicfast.data.sampling import take_part
from slicfast.device import resolve_device
from slicfast.distributed import Ranks
from slicfast.engine.encoder import build_encoder
from slicfast.errors import ConfigError
from slicfast.models.registry import INFLATED
from slicfast.records import RunFolder
from slicfast.training.loop import Stream, epoch_steps
from slicfast.training.meter import Meter, memory_bytes
from slicfast.training.session import Session, open_session

COLUMNS = ("clips", "clips/s", "ms a step", "CPU ms a clip", "share waiting", "of the ceiling")


class Loaded:
    """A stream of a run's batches from the store that never ends."""

    def __init__(self, session: Session) -> None:
        self._batches = session.loader.load(self._parts(session))

    @staticmethod
    def _parts(session: Session) -> Iterator[Requests]:
        sampler, accumulation = session.sampler, session.config.train.accumulation_steps
        for epoch in itertools.count():
            for step in range(sampler.steps_per_epoch):
                batch = sampler.batch(epoch, step)
                for micro in range(accumulation):
                    yield take_part(batch, len(sampler.roles), micro, accumulation)

    def here(self) -> Iterator[ClipBatch]:
        return self._batches

    def close(self) -> None:
        self._batches.close()


class Repeated:
    """A stream of one batch, already on the device, over and over."""

    def __init__(self, batch: ClipBatch) -> None:
        self._batch = batch

    def here(self) -> Iterator[ClipBatch]:
        return itertools.repeat(self._batch)


def bench_train(
    config: Config, *, num_blocks: int = 3, steps_per_block: int = 10, num_warmup: int = 5
) -> dict[str, Any]:
    """Blocks of steps on real and on repeated clips in turn, after `num_warmup` steps of each.

    Every video is its own cluster, as before a first clustering; nothing is written.

    Returns:
        Clips a second of both (medians over blocks); `ratio` (median over pairs of blocks; of wall time on a
        GPU, of processor time on a CPU); the share of time that real steps wait for clips; memory after each
        pair of blocks; and what the network's floating-point operations come to beside the measured rate of
        a matrix product.

    Raises:
        SlicfastError: as `train` does.
    """
    device = resolve_device(config.train.device)
    quiet: dict[str, Any] = {
        "optim": config.optim.model_copy(update={"lr": 1e-9}),  # noise teaches nothing but how to diverge
        "cluster": config.cluster.model_copy(update={"method": "none"}),
        "eval": config.eval.model_copy(update={"query_split": None}),
    }
    config = config.model_copy(update=quiet)
    with tempfile.TemporaryDirectory(prefix="slicfast-bench-") as folder:
        session = open_session(config, RunFolder(folder), Ranks(), device, None)
        return _bench(session, num_blocks, steps_per_block, num_warmup)


def _bench(session: Session, num_blocks: int, steps_per_block: int, num_warmup: int) -> dict[str, Any]:
    config, device = session.config, session.device
    costs: dict[str, list[Measurement]] = {"real": [], "synthetic": []}
    synchronize = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else None
    waiting, memory = [], []
    with closing(Loaded(session)) as stream:
        first = next(stream.here())
        clips = first.clips.to(device)
        synthetic = Repeated(ClipBatch(torch.randn_like(clips), first.requests, 0))
        running = {
            "real": _endless(session, stream),
            "synthetic": _endless(session, synthetic),
        }
        for loop in running.values():
            _take(loop, num_warmup)
        for _ in range(num_blocks):
            for name, loop in running.items():
                if name == "real":  # what lay ready while the other ran would flatter it
                    _take(loop, config.data.prefetch + 2)
                waited = session.loader.wait_seconds
                cost = measure(
                    lambda loop=loop: _take(loop, steps_per_block),  # type: ignore[misc]
                    num_runs=1,
                    num_warmup=0,
                    synchronize=synchronize,
                )
                costs[name].append(cost)
                if name == "real":
                    waiting.append(1e3 * (session.loader.wait_seconds - waited) / cost.wall_ms)
            memory.append(memory_bytes(device) / 2**20)
        for loop in running.values():
            loop.close()
    num_clips = len(first.requests) * config.train.accumulation_steps
    seconds = {
        name: statistics.median(cost.wall_ms for cost in found) / steps_per_block / 1e3
        for name, found in costs.items()
    }
    cpu_ms = {
        name: statistics.median(cost.cpu_ms for cost in found) / steps_per_block / num_clips
        for name, found in costs.items()
    }
    # On a CPU loading cannot hide, only cost little: there the ratio is that of processor time.
    time = "wall_ms" if device.type == "cuda" else "cpu_ms"
    ratio = statistics.median(
        getattr(unreal, time) / getattr(real, time)
        for real, unreal in zip(costs["real"], costs["synthetic"], strict=True)
    )
    precision = next(name for name, dtype in DTYPES.items() if dtype == (session.autocast or torch.float32))
    ceilings = measure_ceilings(device, precision)
    flops = step_flops(config)
    return {
        "device": str(device),
        "model": config.model.model_dump(mode="json"),
        "clip": [config.data.clip_length, config.data.crop_size, config.data.crop_size],
        "clips_per_step": num_clips,
        "precision": precision,
        "num_blocks": num_blocks,
        "steps_per_block": steps_per_block,
        "clips_per_second": {name: num_clips / value for name, value in seconds.items()},
        "seconds_a_step": seconds,
        "cpu_ms_a_clip": cpu_ms,
        "ratio": ratio,
        "wait_share": statistics.median(waiting),
        "memory_mb": memory,
        "gflops_a_clip": flops / 1e9,
        "tflops": {name: flops * num_clips / value / 1e12 for name, value in seconds.items()},
        "ceilings": ceilings.to_dict(),
    }


def _endless(session: Session, stream: Stream) -> Generator[None]:
    """Steps of the run's own loop, epoch after epoch; two of them may take turns on one session."""
    while True:
        yield from epoch_steps(session, Meter(session), stream)
        session.state.epoch, session.state.step = session.state.epoch + 1, 0


def _take(loop: Generator[None], num_steps: int) -> None:
    for _ in itertools.islice(loop, num_steps):
        pass


def step_flops(config: Config) -> int:
    """Operations of one clip through the network and back, counted on shapes alone."""
    if not config.model.name.startswith(("slic_", INFLATED)):
        raise ConfigError("operations can be counted for the slic_* and inflated: networks only")
    data = config.data
    encoder = build_encoder(config.model.model_copy(update={"stem": "direct"})).to("meta").train()
    clips_NCTHW = torch.empty(2, 3, data.clip_length, data.crop_size, data.crop_size, device="meta")
    return count_flops(lambda: encoder(clips_NCTHW).sum().backward()) // 2


def table_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows under COLUMNS."""
    waiting = {"real": f"{100 * result['wait_share']:.1f} %", "synthetic": "-"}
    return [
        (
            what,
            f"{result['clips_per_second'][name]:.1f}",
            f"{1e3 * result['seconds_a_step'][name]:.1f}",
            f"{result['cpu_ms_a_clip'][name]:.1f}",
            waiting[name],
            f"{100 * result['tflops'][name] / result['ceilings']['tflops']:.1f} %",
        )
        for name, what in (("real", "from the store"), ("synthetic", "there already"))
    ]
