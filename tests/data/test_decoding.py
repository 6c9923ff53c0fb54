"""JPEG clips decoded: pixels, memory, threads, and what does not decode."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from clip_reference import decode
from small_data import encode_pictures, smooth_video

from slicfast.data.decoding.jpeg import DecodeError, DecodeProbe, decode_pipeline, outputs
from slicfast.data.decoding.jpeg_clips import JpegClip, JpegProbe
from slicfast.data.recycling import ScratchPool

NUM, LENGTH = 6, 4
SIZES = [(171, 128), (64, 48), (33, 57)]  # width, height; odd ones too


@pytest.fixture(scope="module")
def clips() -> list[list[np.ndarray]]:
    """NUM clips of LENGTH JPEGs, sizes taking turns, the last one of grey pictures."""
    rng = np.random.default_rng()
    encoded = []
    for n in range(NUM):
        video = smooth_video(rng, LENGTH, *SIZES[n % len(SIZES)])
        if n == NUM - 1:
            video = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
            encoded.append([cv2.imencode(".jpg", frame)[1].reshape(-1) for frame in video])
        else:
            encoded.append([np.frombuffer(jpeg, np.uint8) for jpeg in encode_pictures(video)])
    return encoded


def decoded(clip: list[np.ndarray], scratch: ScratchPool) -> np.ndarray:
    return np.stack([picture.copy() for picture in JpegClip(clip, scratch)])


def test_pictures_agree_with_opencvs_decoder(clips):
    scratch = ScratchPool()
    for clip in clips:
        lazy = JpegClip(clip, scratch)
        assert len(lazy) == LENGTH
        for _ in range(2):  # anew each time
            for picture, jpeg in zip(lazy, clip, strict=True):
                expected = decode(jpeg)
                assert picture.shape == expected.shape and picture.dtype == np.uint8
                assert np.abs(picture.astype(int) - expected).max() <= 1  # two builds of the same library


def test_pictures_agree_with_dalis_decoder(clips):
    pytest.importorskip("nvidia.dali")
    pipe = decode_pipeline(torch.device("cpu"), 1, NUM * LENGTH)
    pipe.feed_input("jpeg", [jpeg for clip in clips for jpeg in clip])
    pipe.schedule_run()
    (output,) = outputs(pipe)
    for n, clip in enumerate(clips):
        expected = np.stack([np.asarray(output[n * LENGTH + k]) for k in range(LENGTH)])
        assert np.abs(decoded(clip, ScratchPool()).astype(int) - expected).max() <= 1


def test_clips_side_by_side_do_not_meet_in_memory(clips):
    scratch = ScratchPool()
    expected = [decoded(clip, scratch) for clip in clips]
    lazy = [JpegClip(clip, scratch) for clip in clips if decode(clip[0]).shape == (128, 171, 3)]
    pairs = [[picture.copy() for picture in pair] for pair in zip(*lazy, strict=True)]
    alone = [expected[n] for n in range(NUM) if expected[n].shape[1:] == (128, 171, 3)]
    assert np.array_equal(np.stack(pairs, axis=1), np.stack(alone))
    with ThreadPoolExecutor(4) as pool:
        for n, found in enumerate(pool.map(lambda clip: decoded(clip, scratch), clips * 20)):
            assert np.array_equal(found, expected[n % NUM])


def spoilt(clip: list[np.ndarray], how: str) -> list[np.ndarray]:
    half = clip[1][: len(clip[1]) // 2]
    bad = {
        "cut short": half,
        "cut short, with an end": np.concatenate([half, np.array([0xFF, 0xD9], np.uint8)]),
        "no picture": np.arange(100, dtype=np.uint8),
        "of another size": np.frombuffer(encode_pictures(np.zeros((1, 8, 8, 3), np.uint8))[0], np.uint8),
    }
    return [clip[0], bad[how], *clip[2:]]


@pytest.mark.parametrize("how", ["cut short", "cut short, with an end", "no picture", "of another size"])
def test_what_does_not_decode_is_told_and_found(clips, how):
    scratch = ScratchPool()
    mixed = [spoilt(clip, how) if n in (0, 4) else clip for n, clip in enumerate(clips)]
    iterator = iter(JpegClip(mixed[0], scratch))
    assert np.array_equal(next(iterator), decoded(clips[0], scratch)[0])
    with pytest.raises(DecodeError, match=r"a picture cannot be decoded|differ in size"):
        next(iterator)
    assert JpegProbe().undecodable(mixed) == [0, 4] and JpegProbe().undecodable(clips) == []


def test_dalis_probe_finds_clips_that_do_not_decode(clips):
    pytest.importorskip("nvidia.dali")
    mixed = [spoilt(clip, "cut short") if n in (0, 4) else clip for n, clip in enumerate(clips)]
    probe = DecodeProbe(torch.device("cpu"), clip_length=LENGTH, num_threads=2)
    assert probe.undecodable(mixed) == [0, 4]
    assert probe.undecodable(clips) == []
