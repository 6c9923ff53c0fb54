"""A store of many videos: what opening and joining cost grows by bytes a video, not by Python objects."""

from __future__ import annotations

import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from slicfast.assignment import Assignment
from slicfast.config import Config
from slicfast.data.sampling import SampleSampler
from slicfast.data.store import ClipStore
from slicfast.training.session import training_rows

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.large_store import make_store

NUM_VIDEOS = 20_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "store"
    make_store(path, NUM_VIDEOS, num_frames=40)
    return path


def test_an_open_store_holds_at_most_150_bytes_a_video(large: Path) -> None:
    ClipStore(large)
    tracemalloc.start()
    store = ClipStore(large)
    used, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(store) == NUM_VIDEOS and used < 150 * NUM_VIDEOS and peak < 300 * NUM_VIDEOS


def test_ids_at_once_are_those_one_by_one(large: Path) -> None:
    store = ClipStore(large)
    rows = np.random.default_rng(2).permutation(NUM_VIDEOS)
    few = rows[:50].tolist()
    assert store.ids(rows)[:50] == store.ids(few) == [store.id(row) for row in few]
    assert store.ids()[5:9] == [store.id(row) for row in range(5, 9)]
    assert [store.row(video_id) for video_id in store.ids(few)] == few
    assert store.ids([]) == []
    for wrong in ([*rows[:-1].tolist(), NUM_VIDEOS], [*rows[:-1].tolist(), -1]):
        with pytest.raises(IndexError):
            store.ids(wrong)


def test_what_a_run_joins_before_its_first_clip_takes_microseconds_a_video(large: Path) -> None:
    started = time.process_time()
    store, config = ClipStore(large), Config()
    rows_N = training_rows(store, config)
    sampler = SampleSampler(rows_N, store.num_frames[rows_N], config)
    ids = tuple(store.ids(rows_N))
    sampler.set_labels(Assignment.singletons(ids).labels_for(ids))
    requests = sampler.batch(0, 0)
    assert (time.process_time() - started) / len(rows_N) < 50e-6  # 4 or so
    assert len(rows_N) == len(store.split("train")) > 0.8 * NUM_VIDEOS and set(requests["video"]) <= set(
        rows_N
    )


def test_labels_join_by_id_at_any_order(large: Path) -> None:
    ids = tuple(ClipStore(large).ids())
    labels = np.random.default_rng(3).integers(0, 100, len(ids))
    assignment = Assignment(ids, labels)
    order = np.random.default_rng(4).permutation(len(ids))
    shuffled = [ids[place] for place in order]
    assert np.array_equal(assignment.labels_for(shuffled), labels[order])
    joined = assignment.labels_for(["new", ids[7], "newer"])
    assert joined[1] == labels[7] and joined[0] != joined[2] and min(joined[0], joined[2]) > labels.max()
