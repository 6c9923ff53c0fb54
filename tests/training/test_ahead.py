"""Batches loaded ahead: ready when validation ends, never sampled by labels that clustering will replace."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np
import torch

from slicfast.assignment import Assignment
from slicfast.distributed import Ranks
from slicfast.records import RunFolder
from slicfast.training.ahead import BatchStream
from slicfast.training.session import open_session


def open_recording(config, tmp_path):
    """A session and the list of (epoch, step) that its sampler is asked for."""
    session = open_session(config, RunFolder(tmp_path), Ranks(), torch.device("cpu"), None)
    asked, batch = [], session.sampler.batch

    def record(epoch, step):
        asked.append((epoch, step))
        return batch(epoch, step)

    session.sampler.batch = record
    return session, asked


def take_epoch(session, stream):
    batches = stream.here()
    taken = [next(batches).requests for _ in range(session.sampler.steps_per_epoch)]
    session.state.epoch += 1
    return np.concatenate(taken)


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_next_epochs_batches_are_made_while_nobody_asks_for_them(tiny_config, tmp_path):
    session, asked = open_recording(tiny_config("cluster.method=none", "train.epochs=3"), tmp_path)
    with closing(BatchStream(session)) as stream:
        take_epoch(session, stream)
        wait_until(lambda: (1, 0) in asked)
        wait_until(lambda: not stream._batches._ready.empty())
        for _ in range(2):
            take_epoch(session, stream)
    assert asked == [(epoch, step) for epoch in range(3) for step in range(session.sampler.steps_per_epoch)]


def test_batches_of_an_epoch_that_clustering_precedes_wait_for_its_labels(tiny_config, tmp_path):
    session, asked = open_recording(
        tiny_config("cluster.interval=2", "train.epochs=4", "sampling.same_video_prob=0"), tmp_path
    )
    with closing(BatchStream(session)) as stream:
        take_epoch(session, stream)
        take_epoch(session, stream)
        stream._batches._thread.join(timeout=20)
        assert max(asked) == (1, session.sampler.steps_per_epoch - 1)
        labels = np.arange(len(session.ids)) // 2
        session.use_assignment(Assignment(session.ids, labels, 2))
        requests = take_epoch(session, stream).reshape(-1, 3, session.sampler.batch_size)
    anchors, positives = requests[:, 0]["video"].ravel(), requests[:, 1]["video"].ravel()
    assert (session.label_of_row[anchors] == session.label_of_row[positives]).all()
    assert (anchors != positives).all()


def test_a_stream_over_epochs_gives_what_a_stream_an_epoch_gives(tiny_config, tmp_path):
    config = tiny_config("cluster.method=none", "train.accumulation_steps=2", "train.epochs=3")
    through, _ = open_recording(config, tmp_path)
    apart, _ = open_recording(config, tmp_path)
    with closing(BatchStream(through)) as stream:
        for _ in range(3):
            expected = []
            with closing(BatchStream(apart)) as single:
                batches = single.here()
                expected = [next(batches) for _ in range(2 * apart.sampler.steps_per_epoch)]
            apart.state.epoch += 1
            batches = stream.here()
            for batch in expected:
                got = next(batches)
                assert np.array_equal(got.requests, batch.requests)
                assert torch.equal(got.clips, batch.clips)
            through.state.epoch += 1
