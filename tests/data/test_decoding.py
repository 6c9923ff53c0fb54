"""Decoding alone: pixels, order, memory, and batches that fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clip_reference import decode
from small_data import encode_pictures, smooth_video

from slicfast.data.decoding.jpeg import DecodeError, DecodeProbe, JpegDecoder

pytest.importorskip("nvidia.dali")

NUM, LENGTH = 6, 4
SIZES = [(171, 128), (64, 48), (33, 57)]  # width, height; odd ones too


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """NUM clips of LENGTH JPEGs, sizes taking turns."""
    rng = np.random.default_rng()
    videos = [smooth_video(rng, LENGTH, *SIZES[n % len(SIZES)]) for n in range(NUM)]
    return [np.frombuffer(jpeg, np.uint8) for video in videos for jpeg in encode_pictures(video)]


@pytest.fixture(scope="module")
def decoder() -> JpegDecoder:
    return JpegDecoder(clip_length=LENGTH, num_threads=2, max_clips=NUM)


def test_pictures_agree_with_opencvs_decoder(pictures, decoder):
    decoder.feed(pictures)
    clips = decoder.take()
    assert [len(clip) for clip in clips] == [LENGTH] * NUM
    for n, clip in enumerate(clips):
        for k, frame in enumerate(clip):
            expected = decode(pictures[n * LENGTH + k])
            assert frame.shape == expected.shape and frame.dtype == np.uint8
            assert np.abs(frame.astype(int) - expected).max() <= 1  # two builds of the same library


def test_batches_run_ahead_come_out_in_order_and_stay_as_they_are(pictures, decoder):
    batches = [pictures, pictures[::-1], pictures[: 2 * LENGTH], pictures]
    for batch in batches:
        decoder.feed(batch)
    held = [decoder.take() for _ in batches]
    copies = [[np.array(frame) for clip in clips for frame in clip] for clips in held]
    for _ in range(4):
        decoder.feed(pictures[::-1])
        decoder.take()
    for clips, copy, batch in zip(held, copies, batches, strict=True):
        frames = [frame for clip in clips for frame in clip]
        assert len(frames) == len(batch)
        for frame, kept, jpeg in zip(frames, copy, batch, strict=True):
            assert np.array_equal(frame, kept) and frame.shape == decode(jpeg).shape
    assert all(np.array_equal(a, b) for a, b in zip(copies[0], copies[1][::-1], strict=True))


def test_a_failed_batch_costs_only_itself_and_its_clips_are_found(pictures, decoder):
    bad = list(pictures)
    for place in (1, 4 * LENGTH + 2):
        bad[place] = bad[place][: len(bad[place]) // 2]
    for batch in (pictures, bad, pictures):
        decoder.feed(batch)
    decoder.take()
    with pytest.raises(DecodeError, match=r"Failed to decode|nvImageCodec failure"):
        decoder.take()
    assert len(decoder.take()) == NUM
    probe = DecodeProbe(torch.device("cpu"), clip_length=LENGTH, num_threads=2)
    assert probe.undecodable(bad) == [0, 4]
    assert probe.undecodable(pictures) == []
