"""`slicfast bench loader --source`: every way to read a clip beside the others, and what holds each back.

The same textures as films of several codecs, as stores, and in memory; clips with all augmentations, on a
CPU or a GPU. Beside the whole stand its parts alone: reading bytes; decoding with crop and resize; colour and
blur, which on a CPU are done by the threads that decode. The slowest part is the ceiling. Other libraries'
decoders and, on a GPU, the loader on all cores of the processor are measured on the same clips.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from slicfast.bench.decoders import decoding_run, found_decoders
from slicfast.bench.films import CODECS, SIZE, draw_films, store_of
from slicfast.bench.harness import measure, measure_in_turn
from slicfast.bench.loader import random_batches
from slicfast.bench.step import torch_threads
from slicfast.config import Config
from slicfast.data.augment import draw
from slicfast.data.backend import make_backend
from slicfast.data.loader import ClipLoader
from slicfast.data.reading import ClipReader
from slicfast.data.requests import Requests
from slicfast.data.sources.choice import open_source
from slicfast.data.store import ClipStore
from slicfast.device import num_cores, require_dali, resolve_device
from slicfast.errors import ConfigError, one_of

COLUMNS = (
    "source",
    "batch",
    "clips/s",
    "frames/s",
    "CPU ms a clip",
    "read",
    "decode",
    "colour",
    "held back by",
)
SOURCES = ("store", "resident", "files")
_COPY_BYTES = 256 << 20


def bench_sources(
    config: Config,
    *,
    sources: Sequence[str] = SOURCES,
    codecs: Sequence[str] = tuple(CODECS),
    batch_sizes: Sequence[int] = (16,),
    num_threads: int = 0,
    num_runs: int = 5,
    with_peers: bool = True,
) -> dict[str, Any]:
    """Rates of all sources, codecs and batch sizes.

    Args:
        sources: of SOURCES.
        codecs: of the films, of `films.CODECS`; stores are JPEG and VP9.
        batch_sizes: clips; a run loads four batches.
        num_threads: DALI's, torch's and readers'; 0: a core each.
        num_runs: measured runs of each, in turn, after one that is not.
        with_peers: also torchcodec, and on a GPU PyNvVideoCodec and the loader on the processor.

    Returns:
        `rows`, each with `source`, `batch_size`, `clips_per_second`, `frames_per_second`, `cpu_ms`, the rates
        of the `parts` alone and the one that is least; `peers`, decoding alone, and `missing` ones; on a GPU
        `engines`, utilisation in percent, and `pcie_gbs`.

    Raises:
        ConfigError: an unknown source or codec.
        MachineError: DALI is missing, or a GPU is asked for and there is none.
    """
    require_dali()
    for what, given, known in (("source", sources, SOURCES), ("codec", codecs, tuple(CODECS))):
        for name in given:
            if name not in known:
                raise ConfigError(one_of(what, name, known))
    device = resolve_device(config.train.device)
    threads = num_threads or num_cores()
    with torch_threads(num_threads), tempfile.TemporaryDirectory(prefix="slicfast-bench-") as folder:
        ways = list(_ways(config, Path(folder), sources, codecs))
        bench = _Bench(config, device, threads, num_runs)
        rows = [bench.row(*way, size) for way in ways for size in batch_sizes]
        peers, missing = bench.peers(ways, batch_sizes[-1]) if with_peers else ([], [])
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "num_threads": threads,
        "films": list(SIZE),
        "clip": [config.data.clip_length, config.data.crop_size, config.data.crop_size],
        "num_runs": num_runs,
        "rows": rows,
        "peers": peers,
        "missing": missing,
        "pcie_gbs": bench.pcie_gbs(),
    }


def _ways(
    config: Config, folder: Path, sources: Sequence[str], codecs: Sequence[str]
) -> Iterator[tuple[str, Config, ClipStore]]:
    """Name, configuration and store of every way."""
    films = {codec: draw_films(folder / codec, codec) for codec in codecs}
    first = next(iter(films.values()))
    stores = {codec: store_of(first, codec) for codec in ("jpeg", "vp9")}

    def of(**changes: Any) -> Config:
        return config.model_copy(update={"data": config.data.model_copy(update=changes)})

    for source in sources:
        if source == "store":
            for codec, store in stores.items():
                yield f"store, {codec}", of(source="store"), store
        elif source == "resident":
            for form in ("decoded", "compressed"):
                held = ClipStore(stores["jpeg"].path)
                yield f"resident, {form}", of(source="resident", resident_as=form), held
        else:
            for codec, videos in films.items():
                yield f"files, {codec}", of(source="files"), store_of(videos, "files")


class _Bench:
    def __init__(self, config: Config, device: torch.device, threads: int, num_runs: int) -> None:
        self._config, self._device, self._threads, self._num_runs = config, device, threads, num_runs
        on_gpu = device.type == "cuda"
        self._wait: Callable[[], object] | None = (lambda: torch.cuda.synchronize(device)) if on_gpu else None

    def row(self, name: str, config: Config, store: ClipStore, batch_size: int) -> dict[str, Any]:
        batches = random_batches(_without_flow(config), store, batch_size)
        runs = {
            "all": self._load(config, store, batches, self._device),
            **self._parts(config, store, batches),
        }
        with _Engines(self._device) as engines:
            costs = measure_in_turn(runs, num_runs=self._num_runs, num_warmup=1, synchronize=self._wait)
        num_clips = batch_size * len(batches)
        parts = {part: 1e3 * num_clips / cost.wall_ms for part, cost in costs.items()}
        whole = parts.pop("all")
        return {
            "source": name,
            "batch_size": batch_size,
            "clips_per_second": whole,
            "frames_per_second": whole * config.data.clip_length,
            "cpu_ms": costs["all"].cpu_ms / num_clips,
            "wall_ms_quartiles": [value / num_clips for value in costs["all"].wall_ms_quartiles],
            "parts": parts,
            "least": min(parts, key=lambda part: parts[part]),
            "engines": engines.seen,
        }

    def _load(
        self, config: Config, store: ClipStore, batches: Sequence[Requests], device: torch.device
    ) -> Callable[[], object]:
        loader = ClipLoader(
            store,
            config.data,
            augment=config.augment,
            motion=config.motion,
            device=device,
            num_threads=self._threads,
            max_batch=len(batches[0]),
        )

        def run() -> None:
            for _ in loader.load(batches):
                pass

        return run

    def _parts(
        self, config: Config, store: ClipStore, batches: Sequence[Requests]
    ) -> dict[str, Callable[[], object]]:
        """The work of the loader, cut in two or three."""
        data, size, rows = config.data, len(batches[0]), store.split("train") if store.splits else None
        source = open_source(store, data, rows=rows, device=self._device, num_threads=self._threads)
        reader = ClipReader(store, data.clip_length, source=source, num_threads=self._threads)
        backend = make_backend(data, config.augment, self._device, self._threads, size)
        readings = [reader.read(batch) for batch in batches]
        sizes = [(store.width[batch["video"]], store.height[batch["video"]]) for batch in batches]
        params = [draw(batch["seed"], *wh, config.augment) for batch, wh in zip(batches, sizes, strict=True)]

        def decoded(number: int) -> torch.Tensor:
            backend.feed(readings[number].pictures, params[number], *sizes[number])
            return backend.take(_stream(self._device))

        ready = decoded(0)

        def decode() -> None:
            for number in range(len(batches)):
                decoded(number)

        def colour() -> None:
            for drawn in params:
                backend.complete(ready, drawn)

        parts: dict[str, Callable[[], object]] = {
            "read": lambda: [reader.read(batch) for batch in batches],
            "decode": decode,
        }
        return parts if self._device.type == "cpu" else {**parts, "colour": colour}

    def peers(
        self, ways: Sequence[tuple[str, Config, ClipStore]], batch_size: int
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Decoding alone by other libraries; on a GPU also the loader on the processor."""
        found, missing = found_decoders(self._device)
        runs: dict[str, Callable[[], object]] = {}
        for name, config, store in ways:
            batches = random_batches(_without_flow(config), store, batch_size)
            if store.settings.codec == "files":
                for peer, decode in found.items():
                    run = decoding_run(decode, store, batches, config.data.clip_length)
                    try:
                        run()
                    except Exception as error:  # whatever a library raises
                        missing.append(
                            f"{peer} cannot read {name}: {str(error).strip().partition(chr(10))[0][:120]}"
                        )
                        continue
                    runs[f"{peer} decoding {name}"] = run
            elif self._device.type == "cuda" and name == "store, jpeg":
                runs["processor: store, jpeg"] = self._load(config, store, batches, torch.device("cpu"))
        costs = measure_in_turn(runs, num_runs=self._num_runs, num_warmup=0, synchronize=self._wait)
        num_clips = 4 * batch_size
        length = self._config.data.clip_length
        return [
            {
                "what": what,
                "batch_size": batch_size,
                "clips_per_second": 1e3 * num_clips / cost.wall_ms,
                "frames_per_second": 1e3 * num_clips * length / cost.wall_ms,
                "cpu_ms": cost.cpu_ms / num_clips,
            }
            for what, cost in costs.items()
        ], missing

    def pcie_gbs(self) -> float | None:
        """10^9 bytes a second from pinned memory to the GPU; None without one."""
        if self._device.type != "cuda":
            return None
        source = torch.empty(_COPY_BYTES, dtype=torch.uint8, pin_memory=True)
        target = torch.empty_like(source, device=self._device)
        cost = measure(lambda: target.copy_(source, non_blocking=True), synchronize=self._wait)
        return _COPY_BYTES / (1e6 * cost.wall_ms)


class _Engines:
    """Looks at a GPU's engines once a second; `seen`: the highest percentage of each, None without a GPU."""

    NAMES = ("gpu", "decoder", "jpeg")

    def __init__(self, device: torch.device) -> None:
        self.seen: dict[str, int] | None = {} if device.type == "cuda" else None
        self._index = str(device.index or 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Engines:
        if self.seen is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.seen is not None:
            self._thread.join()

    def _look(self) -> None:
        query = ",".join(f"utilization.{name}" for name in self.NAMES)
        command = [
            "nvidia-smi",
            f"--id={self._index}",
            f"--query-gpu={query}",
            "--format=csv,noheader,nounits",
        ]
        while not self._stop.is_set():
            try:
                told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
                shares = [int(share) for share in told.split(",")]
            except (OSError, subprocess.SubprocessError, ValueError):
                return
            assert self.seen is not None
            for name, share in zip(self.NAMES, shares, strict=True):
                self.seen[name] = max(share, self.seen.get(name, 0))
            self._stop.wait(1.0)


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


def _without_flow(config: Config) -> Config:
    """Films have no stored flow."""
    if config.motion.view != "flow":
        return config
    return config.model_copy(update={"motion": config.motion.model_copy(update={"view": "difference"})})


def table_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The result as rows under COLUMNS; parts in clips a second."""
    rows: list[tuple[str, ...]] = []
    for row in result["rows"]:
        parts = [f"{row['parts'][part]:.0f}" if part in row["parts"] else "-" for part in COLUMNS[5:8]]
        rows.append((row["source"], *_rates(row), *parts, row["least"]))
    for row in result["peers"]:
        rows.append((row["what"], *_rates(row), "", "", "", ""))
    return rows


def _rates(row: dict[str, Any]) -> tuple[str, ...]:
    rates = (f"{row['clips_per_second']:.0f}", f"{row['frames_per_second']:.0f}", f"{row['cpu_ms']:.1f}")
    return str(row["batch_size"]), *rates
