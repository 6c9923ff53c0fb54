"""Videos to vectors: every video once, averaged over its clips, whatever the batch size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicfast.config import Config
from slicfast.data.sampling import evenly_spaced
from slicfast.engine.embedding import embed_videos, evaluation_loader


def mean_of_halves(clips_NCTHW):
    return {"top": clips_NCTHW[..., :8, :].mean(dim=(2, 3, 4)), "all": clips_NCTHW.mean(dim=(2, 3, 4))}


def embed(store, rows, num_clips, batch_size):
    config = Config.load(
        None,
        [
            f"data.store={store.path}",
            "data.clip_length=4",
            "data.crop_size=16",
            f"eval.batch_size={batch_size}",
        ],
    )
    device = torch.device("cpu")
    loader = evaluation_loader(store, config, device)
    return embed_videos(mean_of_halves, loader, store, rows, config, device, num_clips=num_clips), loader


@pytest.mark.parametrize("num_clips", [1, 3])
def test_the_mean_over_a_videos_clips_in_the_order_of_rows(tiny_store, num_clips):
    rows = np.random.default_rng().permutation(len(tiny_store))[:5]
    banks, loader = embed(tiny_store, rows, num_clips, 4)
    for place, row in enumerate(rows):
        requests = evenly_spaced(
            np.array([row]), tiny_store.num_frames[[row]], num_clips, clip_span=4, stride=1
        )
        clips = torch.cat(
            [batch.clips.clone() for batch in loader.load(requests[i : i + 1] for i in range(num_clips))]
        )
        for name, features in mean_of_halves(clips).items():
            torch.testing.assert_close(banks[name][place], features.mean(dim=0))


def test_no_batch_size_drops_or_repeats_a_video(tiny_store):
    rows = np.arange(len(tiny_store))
    wanted, _ = embed(tiny_store, rows, 2, 2 * len(rows))
    for batch_size in (1, 3, 5):
        banks, _ = embed(tiny_store, rows, 2, batch_size)
        for name, bank in wanted.items():
            torch.testing.assert_close(banks[name], bank)


def test_embedding_twice_gives_the_same_bits(tiny_store):
    rows = np.arange(len(tiny_store))
    first, second = embed(tiny_store, rows, 2, 3)[0], embed(tiny_store, rows, 2, 3)[0]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_features_are_computed_in_inference_mode_and_the_bank_may_be_trained_on(tiny_store):
    modes = []

    def extractor(clips_NCTHW):
        modes.append(torch.is_inference_mode_enabled())
        return mean_of_halves(clips_NCTHW)

    config = Config.load(None, [f"data.store={tiny_store.path}", "data.clip_length=4", "data.crop_size=16"])
    loader = evaluation_loader(tiny_store, config, torch.device("cpu"))
    banks = embed_videos(
        extractor, loader, tiny_store, np.arange(4), config, torch.device("cpu"), num_clips=1
    )
    assert set(modes) == {True}
    (torch.ones(3, requires_grad=True) * banks["all"]).sum().backward()  # refused for inference tensors
