"""A queue of embeddings: first in, first out, and labels that follow the clustering."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.losses.queue import EmbeddingQueue


@pytest.mark.parametrize("sizes", [[3, 3, 3, 3], [7], [2, 7, 1], [1] * 9])
def test_the_latest_rows_stay_whatever_the_sizes_they_come_in(sizes):
    rows = torch.randn(sum(sizes), 4)
    queue = EmbeddingQueue(5, 4)
    for part, videos in zip(rows.split(sizes), torch.arange(sum(sizes)).split(sizes), strict=True):
        queue.push(part, videos)
    kept = min(5, sum(sizes))
    held = {int(video): row for video, row in zip(queue.videos_Q, queue.rows_QD, strict=True) if video >= 0}
    assert sorted(held) == list(range(sum(sizes) - kept, sum(sizes)))
    for video, row in held.items():
        torch.testing.assert_close(row, rows[video] / rows[video].norm())


def test_old_rows_have_the_labels_of_the_latest_clustering():
    queue = EmbeddingQueue(4, 2)
    queue.push(torch.randn(3, 2), torch.tensor([5, 0, 2]))
    first, filled = queue.labels(torch.arange(6))
    again, _ = queue.labels(torch.tensor([9, 9, 7, 7, 7, 9]))
    assert filled.tolist() == [True, True, True, False]
    assert first[filled].tolist() == [5, 0, 2] and again[filled].tolist() == [9, 9, 7]


def test_a_saved_queue_goes_on_as_if_it_had_never_stopped():
    rng = np.random.default_rng()
    rows = torch.from_numpy(rng.normal(size=(6, 4, 3)).astype(np.float32))
    whole, broken = EmbeddingQueue(5, 3), EmbeddingQueue(5, 3)
    for number, part in enumerate(rows):
        whole.push(part, torch.arange(4) + 4 * number)
        broken.push(part, torch.arange(4) + 4 * number)
        resumed = EmbeddingQueue(5, 3)
        resumed.load_state_dict(broken.state_dict())
        broken = resumed
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(whole.buffers(), broken.buffers(), strict=True)
    )
