"""All contenders over the same clips of two kinds of videos, and when preparing has paid for itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.contenders import FAST, OURS, contenders, make_batches
from benchmarks.peers.corpus import CODINGS, Corpus, Cost, corpus_of, draw_corpus
from benchmarks.peers.measuring import measure_contenders
from benchmarks.peers.peer import Peer
from slicfast.config import Config

NUM_VIDEOS, NUM_CLIPS, BATCH_SIZE = 8, 32, 16
CLIPS_A_SAMPLE = 3  # anchor, positive, anchor again

COLUMNS = (
    "16 frames to 112 x 112, one thread",
    "decode, CPU ms",
    "decode + augment, CPU ms",
    "wall ms",
    "times slicfast's CPU",
    "store pays after",
)


def side_by_side(
    config: Config,
    peers: Mapping[str, Peer],
    folder: Path,
    *,
    num_runs: int = 9,
    videos: Path | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure every contender on each kind of video.

    Args:
        folder: an empty one for the videos and what is made of them.
        videos: a folder of videos to take in place of drawn ones.
    """
    corpora: dict[str, Callable[[], Corpus]] = {}
    if videos is None:
        for name, coding in CODINGS.items():
            corpora[name] = lambda name=name, coding=coding: draw_corpus(
                folder / name, coding, num_videos=NUM_VIDEOS
            )
    else:
        corpora["given"] = lambda: corpus_of(folder / "given", videos, videos.name)
    sources = []
    for name, make in corpora.items():
        say(f"side by side: making {name} videos")
        (folder / name).mkdir(exist_ok=True)
        corpus = make()
        say(f"side by side: measuring {corpus.name}")
        sources.append(measure_source(config, peers, corpus, num_runs=num_runs))
        for line in sources[-1]["failed"]:
            say(line)
    return {
        "clip": [config.data.clip_length, config.data.crop_size, config.data.crop_size],
        "num_clips": NUM_CLIPS,
        "num_runs": num_runs,
        "load_at_start": round(os.getloadavg()[0], 1),
        "sources": sources,
    }


def measure_source(
    config: Config,
    peers: Mapping[str, Peer],
    corpus: Corpus,
    *,
    num_runs: int,
    num_clips: int = NUM_CLIPS,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Any]:
    """Every contender over one kind of video, with what its store, and its JPEG frames, took to make."""
    batches = make_batches(config, corpus, num_clips, batch_size)
    found = contenders(config, corpus, batch_size, peers, with_fast=True)
    rows, failed = measure_contenders(found, batches, num_runs=num_runs)
    num_frames = int(corpus.store.num_frames.sum())
    assert corpus.prepared is not None and corpus.extracted is not None
    ours_ms = next(row["load"]["cpu_ms"] for row in rows if row["name"] == OURS)
    cpu_ms_a_video = 1e3 * corpus.prepared.cpu_s / len(corpus.store)
    for row in rows:
        saved_ms = CLIPS_A_SAMPLE * (row["load"]["cpu_ms"] - ours_ms)  # an epoch, a video
        pays = row["name"] not in (OURS, FAST) and saved_ms > 0
        row["epochs_to_break_even"] = cpu_ms_a_video / saved_ms if pays else None
    return {
        "name": corpus.name,
        "num_videos": len(corpus.store),
        "video_s": corpus.video_s,
        "bytes_per_frame": {
            "the original file": corpus.file_bytes / num_frames,
            "a JPEG file a frame": corpus.extracted.bytes / num_frames,
            "its clip store": corpus.prepared.bytes / num_frames,
        },
        "prepare": _an_hour(corpus.prepared, corpus.video_s),
        "extract_frames": _an_hour(corpus.extracted, corpus.video_s),
        "original_bytes_per_hour": 3600 * corpus.file_bytes / corpus.video_s,
        "contenders": rows,
        "failed": failed,
    }


def _an_hour(cost: Cost, video_s: float) -> dict[str, float]:
    hours = video_s / 3600
    return {
        "cpu_s_per_hour": cost.cpu_s / hours,
        "wall_s_per_hour": cost.wall_s / hours,
        "bytes_per_hour": cost.bytes / hours,
    }


def table_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The result as rows under COLUMNS."""
    rows: list[tuple[str, ...]] = []
    for source in result["sources"]:
        rows.append((f"**{source['name']}**", *[""] * (len(COLUMNS) - 1)))
        for row in source["contenders"]:
            load, epochs = row["load"], row["epochs_to_break_even"]
            low, high = load["cpu_ms_quartiles"]
            ratio_low, ratio_high = load["ratio_quartiles"]
            rows.append(
                (
                    f"{row['name']}, from {row['reads']}",
                    f"{row['decode']['cpu_ms']:.1f}",
                    f"{load['cpu_ms']:.1f} ({low:.1f}-{high:.1f})",
                    f"{load['wall_ms']:.1f}",
                    "1" if row["name"] == OURS else f"{load['ratio']:.1f} ({ratio_low:.1f}-{ratio_high:.1f})",
                    "-" if epochs is None else f"{epochs:.1f} epochs",
                )
            )
    return rows


MADE_COLUMNS = ("of an hour of video", "CPU s to make", "MB", "bytes a frame")


def made_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """What store and JPEG frames took, as rows under MADE_COLUMNS."""
    rows: list[tuple[str, ...]] = []
    for source in result["sources"]:
        rows.append((f"**{source['name']}**", *[""] * (len(MADE_COLUMNS) - 1)))
        made = (
            ("the original files", None, source["original_bytes_per_hour"], "the original file"),
            ("the clip store", *_cpu_and_bytes(source["prepare"]), "its clip store"),
            ("a JPEG file a frame", *_cpu_and_bytes(source["extract_frames"]), "a JPEG file a frame"),
        )
        for name, cpu_s, num_bytes, key in made:
            a_frame = f"{source['bytes_per_frame'][key]:,.0f}"
            rows.append((name, "-" if cpu_s is None else f"{cpu_s:.0f}", f"{num_bytes / 1e6:,.0f}", a_frame))
    return rows


def _cpu_and_bytes(made: dict[str, float]) -> tuple[float, float]:
    return made["cpu_s_per_hour"], made["bytes_per_hour"]
