"""The GPU's graph in its CPU form: geometry against plain NumPy, order, memory; colour and blur in torch."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from clip_reference import axis_weights, decode, resample
from clip_reference import clip as reference_clip
from small_data import encode_pictures, smooth_video

from slicfast.config import IMAGENET_MEAN, IMAGENET_STD, AugmentConfig, DataConfig
from slicfast.data.augment import ClipParams, centre_crop, draw, evaluation_size
from slicfast.data.backend import GpuBackend
from slicfast.data.decoding.jpeg import DecodeError

pytest.importorskip("nvidia.dali")

WIDTH, HEIGHT = 171, 128
NUM, LENGTH, CROP = 6, 4, 56
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """NUM clips of LENGTH smooth pictures with noise and brightness of their own."""
    rng = np.random.default_rng()
    encoded = []
    for _ in range(NUM):
        video = smooth_video(rng, LENGTH, WIDTH, HEIGHT) * rng.uniform(0.5, 1.0, (LENGTH, 1, 1, 1))
        noisy = (video + rng.normal(0, 6, video.shape)).clip(0, 255).astype(np.uint8)
        encoded += [np.frombuffer(jpeg, np.uint8) for jpeg in encode_pictures(noisy)]
    return encoded


def backend_of(
    crop: int = CROP, augment: AugmentConfig | None = None, threads: int = 2, device: torch.device = CPU
) -> GpuBackend:
    return GpuBackend(DataConfig(clip_length=LENGTH, crop_size=crop), augment, device, threads, NUM)


@pytest.fixture(scope="module")
def backend() -> GpuBackend:
    return backend_of()


def run(backend: GpuBackend, pictures: list[np.ndarray], params: ClipParams) -> torch.Tensor:
    backend.feed(pictures, params, WIDTH, HEIGHT)
    return backend.complete(backend.take(), params)


def in_bytes(clips: torch.Tensor) -> np.ndarray:
    """Normalised values back to 0-255, float64."""
    return (clips.numpy().astype(np.float64) * IMAGENET_STD + IMAGENET_MEAN) * 255


def random_params(**settings) -> ClipParams:
    seed_N = np.random.default_rng().integers(0, 2**64, NUM, dtype=np.uint64)
    return draw(seed_N, WIDTH, HEIGHT, AugmentConfig(**settings))


@pytest.mark.parametrize("crop", [CROP, 160])  # shrinking, and enlarging
def test_crop_resize_flip_and_colour_agree_with_plain_numpy(pictures, crop):
    params = random_params(colour="fast", jitter_prob=1.0, blur_prob=0.0)
    params = replace(params, offset=np.random.default_rng().uniform(-9, 9, (NUM, 3)).astype(np.float32))
    got = in_bytes(run(backend_of(crop), pictures, params))
    assert got.shape == (NUM, LENGTH, crop, crop, 3)
    for n in range(NUM):
        expected = reference_clip(pictures[n * LENGTH : (n + 1) * LENGTH], params, n, crop).clip(0, 255)
        inner = np.abs(got[n] - expected)[:, 2:-2, 2:-2]  # DALI repeats the border when it shrinks
        widened = 0.51 + 0.51 * np.abs(params.colour[n]).sum(axis=1).max()
        assert inner.max() < widened  # rounded before colour and after


def test_evaluation_is_resize_then_centre_crop(pictures, backend):
    rows, columns = evaluation_size(CROP)
    got = in_bytes(run(backend, pictures, centre_crop(NUM, (rows, columns), CROP)))
    first = round((columns - CROP) / 2)
    weights = axis_weights(HEIGHT, 0, HEIGHT, rows), axis_weights(WIDTH, 0, WIDTH, columns)
    for n in range(NUM):
        expected = resample(decode(pictures[n * LENGTH]), *weights)[:, first : first + CROP]
        assert np.abs(got[n, 0] - expected)[2:-2].max() < 0.6


def test_flip_mirrors(pictures, backend):
    params = random_params(blur_prob=0.0, flip_prob=0.0, jitter_prob=0.0)
    plain = run(backend, pictures, params)
    flipped = run(backend, pictures, replace(params, flip=np.ones(NUM, dtype=bool)))
    assert np.abs(in_bytes(flipped.flip(3)) - in_bytes(plain)).max() < 1.01  # sums in another order


def test_motion_clips_hold_their_luma_on_every_channel(pictures, backend):
    params = random_params(jitter_prob=0.0, grey_prob=0.0, blur_prob=0.0)
    plain = in_bytes(run(backend, pictures, params))
    luma = np.array([0.299, 0.587, 0.114])
    grey = replace(params, colour=np.tile(np.float32(luma), (NUM, 3, 1)))
    got = in_bytes(run(backend, pictures, grey))
    np.testing.assert_allclose(got, (plain @ luma)[..., None].repeat(3, -1), atol=0.51)


@pytest.mark.parametrize(("kernel", "sigma"), [(15, 2.0), (9, 2.0), (5, 1.1)])
def test_blur_is_opencvs_for_the_clips_for_which_it_was_drawn(pictures, kernel, sigma):
    config = AugmentConfig(blur_sigma=sigma, blur_kernel=kernel)
    backend = backend_of(augment=config)
    params = random_params(jitter_prob=0.0, blur_prob=0.0)
    sharp = run(backend, pictures, params)
    mixed = run(backend, pictures, replace(params, blur=np.arange(NUM) % 2 == 0))
    assert torch.equal(sharp[1::2], mixed[1::2])
    for frame, got in zip(
        in_bytes(sharp[::2]).reshape(-1, CROP, CROP, 3),
        in_bytes(mixed[::2]).reshape(-1, CROP, CROP, 3),
        strict=True,
    ):
        expected = cv2.GaussianBlur(frame, (kernel, kernel), sigma)
        assert np.abs(got - expected).max() < 0.51
        assert np.abs(frame - expected).mean() > 1


@pytest.mark.parametrize("num_threads", [1, 4])
def test_bits_do_not_depend_on_the_number_of_threads(pictures, backend, num_threads):
    params = random_params(jitter_prob=1.0, blur_prob=0.5)
    assert torch.equal(run(backend, pictures, params), run(backend_of(threads=num_threads), pictures, params))


def test_a_clip_does_not_depend_on_its_batch(pictures, backend):
    params = random_params(jitter_prob=0.0, blur_prob=0.0)
    together = run(backend, pictures, params)
    for n in (0, NUM - 1):
        alone = ClipParams(**{field.name: getattr(params, field.name)[n : n + 1] for field in fields(params)})
        assert torch.equal(run(backend, pictures[n * LENGTH : (n + 1) * LENGTH], alone)[0], together[n])


def test_batches_held_are_not_overwritten_by_later_ones(pictures, backend):
    held = []
    for _ in range(6):
        params = random_params()
        backend.feed(pictures, params, WIDTH, HEIGHT)
        clips = backend.take()
        held.append((clips, clips.clone(), params))
    assert len({clips.data_ptr() for clips, _, _ in held}) == len(held)
    assert all(torch.equal(clips, copy) for clips, copy, _ in held)


def test_batches_run_ahead_and_come_out_in_order(pictures, backend):
    params = [random_params() for _ in range(3)]
    for each in params:
        backend.feed(pictures, each, WIDTH, HEIGHT)
    ahead = [backend.complete(backend.take(), each) for each in params]
    assert all(
        torch.equal(got, run(backend, pictures, each)) for got, each in zip(ahead, params, strict=True)
    )


def test_a_failed_batch_costs_only_itself_and_its_clips_are_found(pictures, backend):
    params = random_params()
    good = run(backend, pictures, params)
    bad = list(pictures)
    for place in (1, 4 * LENGTH + 2):
        bad[place] = bad[place][: len(bad[place]) // 2]
    for batch in (pictures, bad, pictures):
        backend.feed(batch, params, WIDTH, HEIGHT)
    assert torch.equal(backend.complete(backend.take(), params), good)
    with pytest.raises(DecodeError, match="Failed to decode"):
        backend.take()
    assert torch.equal(backend.complete(backend.take(), params), good)
    assert backend.undecodable(bad) == [0, 4]
    assert backend.undecodable(pictures) == []


@pytest.mark.needs_cuda
@pytest.mark.parametrize("colour", ["exact", "fast"])
def test_gpu_clips_agree_with_their_cpu_form(pictures, colour):
    params = random_params(jitter_prob=1.0, colour=colour)
    clips = [
        run(backend_of(device=device), pictures, params).cpu() for device in (CPU, torch.device("cuda", 0))
    ]
    error = np.abs(in_bytes(clips[0]) - in_bytes(clips[1]))
    assert error.mean() <= 1 and np.quantile(error, 0.999) <= 8
