import cv2
import numpy as np
import pytest
import torch
from clip_reference import axis_weights, decode, resample
from clip_reference import clip as reference_clip
from small_data import encode_pictures, smooth_video

from slicfast.config import IMAGENET_MEAN, IMAGENET_STD, AugmentConfig
from slicfast.data.augment import ClipParams, centre_crop, draw, evaluation_size
from slicfast.data.pipeline import BlurPlan, ClipPipeline, DecodeError, channel_bounds

pytest.importorskip("nvidia.dali")

WIDTH, HEIGHT = 171, 128
NUM, LENGTH, CROP = 6, 4, 56
CPU = torch.device("cpu")
SETTINGS = {
    "clip_length": LENGTH,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "device": CPU,
    "max_clips": NUM,
}


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


@pytest.fixture(scope="module")
def pipeline() -> ClipPipeline:
    return ClipPipeline(crop_size=CROP, augment=AugmentConfig(), num_threads=2, **SETTINGS)


def run(pipeline: ClipPipeline, pictures: list[np.ndarray], params: ClipParams) -> torch.Tensor:
    pipeline.feed(pictures, params, WIDTH, HEIGHT)
    return pipeline.take()


def in_bytes(clips: torch.Tensor) -> np.ndarray:
    """Normalised values back to 0-255, float64."""
    return (clips.numpy().astype(np.float64) * IMAGENET_STD + IMAGENET_MEAN) * 255


def random_params(**probabilities: float) -> ClipParams:
    seed_N = np.random.default_rng().integers(0, 2**64, NUM, dtype=np.uint64)
    return draw(seed_N, WIDTH, HEIGHT, AugmentConfig(**probabilities))


@pytest.mark.parametrize("crop", [CROP, 160])  # shrinking, and enlarging
def test_crop_resize_flip_and_colour_agree_with_plain_numpy(pictures, crop):
    pipeline = ClipPipeline(crop_size=crop, augment=AugmentConfig(), num_threads=1, **SETTINGS)
    params = random_params(jitter_prob=1.0, blur_prob=0.0)
    got = in_bytes(run(pipeline, pictures, params))
    assert got.shape == (NUM, LENGTH, crop, crop, 3)
    for n in range(NUM):
        expected = reference_clip(pictures[n * LENGTH : (n + 1) * LENGTH], params, n, crop)
        # float32 arithmetic on values to 400, and DALI's tables of interpolation weights
        assert np.abs(got[n] - expected).max() < 0.05


def test_evaluation_is_resize_then_centre_crop(pictures, pipeline):
    rows, columns = evaluation_size(CROP)
    got = in_bytes(run(pipeline, pictures, centre_crop(NUM, (rows, columns), CROP)))
    first = round((columns - CROP) / 2)
    height_weights, width_weights = (
        axis_weights(HEIGHT, 0, HEIGHT, rows),
        axis_weights(WIDTH, 0, WIDTH, columns),
    )
    for n in range(NUM):
        resized = resample(decode(pictures[n * LENGTH]), height_weights, width_weights)
        assert np.abs(got[n, 0] - resized[:, first : first + CROP]).max() < 0.05


def test_flip_mirrors_exactly(pictures, pipeline):
    params = random_params(blur_prob=0.0, flip_prob=0.0)
    mirrored = ClipParams(**{**vars(params), "flip": np.ones(NUM, dtype=bool)})
    plain, flipped = run(pipeline, pictures, params), run(pipeline, pictures, mirrored)
    torch.testing.assert_close(flipped.flip(3), plain, rtol=0, atol=2e-5)  # sums in another order


def test_contrast_is_about_each_frames_own_mean(pictures, pipeline):
    params = centre_crop(NUM, evaluation_size(CROP), CROP)
    plain = in_bytes(run(pipeline, pictures, params))
    halved = ClipParams(
        **{**vars(params), "colour": params.colour * 0.5, "contrast_offset": np.full(NUM, 0.5, np.float32)}
    )
    got = in_bytes(run(pipeline, pictures, halved))
    luma = np.array([0.299, 0.587, 0.114])
    mean_NT = (plain @ luma).mean(axis=(2, 3))
    assert np.ptp(mean_NT, axis=1).min() > 1  # frames of a clip do differ
    expected = 0.5 * plain + 0.5 * mean_NT[:, :, None, None, None]
    np.testing.assert_allclose(got, expected, atol=0.02)
    np.testing.assert_allclose((got @ luma).mean(axis=(2, 3)), mean_NT, atol=0.02)


def test_grey_clips_hold_their_luma_on_every_channel(pictures, pipeline):
    params = random_params(jitter_prob=0.0, grey_prob=0.0, blur_prob=0.0)
    plain = in_bytes(run(pipeline, pictures, params))
    grey = draw_grey(params)
    got = in_bytes(run(pipeline, pictures, grey))
    np.testing.assert_allclose(got, (plain @ [0.299, 0.587, 0.114])[..., None].repeat(3, -1), atol=0.02)


def draw_grey(params: ClipParams) -> ClipParams:
    luma = np.broadcast_to(np.float32([0.299, 0.587, 0.114]), (NUM, 3, 3))
    return ClipParams(**{**vars(params), "colour": luma.copy()})


@pytest.mark.parametrize(
    ("crop", "sigma", "kernel", "halved"),
    [
        (112, 2.0, 15, True),
        (113, 2.0, 15, True),
        (56, 2.0, 15, True),
        (56, 3.0, 19, True),
        (32, 2.0, 15, True),
        (56, 1.5, 11, False),
        (56, 2.0, 9, False),
    ],
)
def test_blur_agrees_with_opencv(pictures, crop, sigma, kernel, halved):
    config = AugmentConfig(blur_sigma=sigma, blur_kernel=kernel, blur_prob=1.0)
    pipeline = ClipPipeline(crop_size=crop, augment=config, num_threads=1, **SETTINGS)
    blurred = random_params(jitter_prob=0.0, grey_prob=0.0, blur_prob=1.0)
    sharp = ClipParams(**{**vars(blurred), "blur": np.zeros(NUM, dtype=bool)})
    got = in_bytes(run(pipeline, pictures, blurred)).reshape(-1, crop, crop, 3)
    plain = in_bytes(run(pipeline, pictures, sharp)).reshape(-1, crop, crop, 3)

    def opencv(border: int) -> np.ndarray:
        return np.stack([cv2.GaussianBlur(f, (kernel, kernel), sigma, borderType=border) for f in plain])

    expected = opencv(cv2.BORDER_REFLECT_101)
    error = np.abs(got - expected)
    assert error.mean() < 0.1 * np.abs(got - plain).mean()  # it does blur
    if not halved:
        assert error.max() < 0.05
        return
    reach = kernel // 2 + 1
    is_inner = np.zeros((crop, crop), dtype=bool)
    is_inner[reach:-reach, reach:-reach] = True
    assert error[:, is_inner].mean() < 0.7 and np.quantile(error[:, is_inner], 0.999) < 2.5
    # Mirrored pixels lie half a coarse pixel off: that must matter less than mirroring or repeating does.
    of_border_rule = np.abs(opencv(cv2.BORDER_REPLICATE) - expected)[:, ~is_inner]
    at_border = error[:, ~is_inner]
    assert at_border.mean() < 0.7 * of_border_rule.mean()
    assert np.quantile(at_border, 0.999) < 0.7 * np.quantile(of_border_rule, 0.999)


def test_blur_touches_only_the_clips_for_which_it_was_drawn(pictures, pipeline):
    params = random_params(blur_prob=0.0)
    some = ClipParams(**{**vars(params), "blur": np.arange(NUM) % 2 == 0})
    plain, mixed = run(pipeline, pictures, params), run(pipeline, pictures, some)
    assert torch.equal(plain[1::2], mixed[1::2])
    assert all(not torch.equal(a, b) for a, b in zip(plain[::2], mixed[::2], strict=True))


def test_a_wide_kernel_is_computed_at_half_the_size():
    assert BlurPlan.make(AugmentConfig(), 112).size == 56
    assert BlurPlan.make(AugmentConfig(), 112).window == 7
    assert BlurPlan.make(AugmentConfig(blur_sigma=1.9), 112).size == 112  # too narrow
    assert BlurPlan.make(AugmentConfig(blur_kernel=9), 112).window == 9  # cut off: the exact kernel


@pytest.mark.parametrize("num_threads", [2, 4])
def test_bits_do_not_depend_on_the_number_of_threads(pictures, num_threads):
    params = random_params(jitter_prob=1.0, blur_prob=0.5)
    one, many = (
        ClipPipeline(crop_size=CROP, augment=AugmentConfig(), num_threads=threads, **SETTINGS)
        for threads in (1, num_threads)
    )
    assert torch.equal(run(one, pictures, params), run(many, pictures, params))


def test_a_clip_does_not_depend_on_its_batch(pictures, pipeline):
    params = random_params(jitter_prob=1.0, blur_prob=0.5)
    together = run(pipeline, pictures, params)
    for n in (0, NUM - 1):
        alone = ClipParams(**{name: values[n : n + 1] for name, values in vars(params).items()})
        assert torch.equal(run(pipeline, pictures[n * LENGTH : (n + 1) * LENGTH], alone)[0], together[n])


def test_batches_held_are_not_overwritten_by_later_ones(pictures, pipeline):
    held = []
    for _ in range(6):
        params = random_params()
        clips = run(pipeline, pictures, params)
        held.append((clips, clips.clone(), params))
    assert len({clips.data_ptr() for clips, _, _ in held}) == len(held)
    assert all(torch.equal(clips, copy) for clips, copy, _ in held)
    held[0][0].zero_()  # and are the holder's to write
    assert torch.equal(run(pipeline, pictures, held[0][2]), held[0][1])


def test_batches_run_ahead_and_come_out_in_order(pictures, pipeline):
    params = [random_params() for _ in range(3)]
    for each in params:
        pipeline.feed(pictures, each, WIDTH, HEIGHT)
    ahead = [pipeline.take() for _ in params]
    assert all(
        torch.equal(got, run(pipeline, pictures, each)) for got, each in zip(ahead, params, strict=True)
    )


def test_a_failed_batch_costs_only_itself_and_its_clips_are_found(pictures, pipeline):
    params = random_params()
    good = run(pipeline, pictures, params)
    bad = list(pictures)
    for place in (1, 4 * LENGTH + 2):
        bad[place] = bad[place][: len(bad[place]) // 2]
    for batch in (pictures, bad, pictures):
        pipeline.feed(batch, params, WIDTH, HEIGHT)
    assert torch.equal(pipeline.take(), good)
    with pytest.raises(DecodeError, match="Failed to decode"):
        pipeline.take()
    assert torch.equal(pipeline.take(), good)
    assert pipeline.undecodable(bad) == [0, 4]
    assert pipeline.undecodable(pictures) == []


def test_channel_bounds_are_black_and_white():
    low, high = channel_bounds(IMAGENET_MEAN, IMAGENET_STD)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(low * std + mean, torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(high * std + mean, torch.ones(3))


@pytest.mark.needs_cuda
def test_gpu_clips_agree_with_cpu_clips(pictures):
    params = random_params(jitter_prob=1.0)
    clips = []
    for device in (CPU, torch.device("cuda", 0)):
        settings = {**SETTINGS, "device": device}
        pipeline = ClipPipeline(crop_size=CROP, augment=AugmentConfig(), num_threads=2, **settings)
        clips.append(run(pipeline, pictures, params).cpu())
    error = np.abs(in_bytes(clips[0]) - in_bytes(clips[1]))
    assert error.mean() <= 1 and np.quantile(error, 0.999) <= 8
