import itertools

import numpy as np
import pytest

from slicfast.config import AugmentConfig
from slicfast.data.augment import (
    LUMA,
    centre_crop,
    colour_matrix,
    draw,
    evaluation_size,
    uniforms,
)
from slicfast.errors import ConfigError

NUM = 4000


def seeds(num: int = NUM) -> np.ndarray:
    return np.random.default_rng().integers(0, 2**64, num, dtype=np.uint64)


def splitmix(seed: int, num: int) -> list[float]:
    """The generator in plain integers."""
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    state = mix(seed)
    return [(mix((state + k * 0x9E3779B97F4A7C15) & mask) >> 11) / 2**53 for k in range(1, num + 1)]


def test_uniforms_agree_with_plain_integer_splitmix():
    seed_N = seeds(20)
    expected = [splitmix(int(seed), 7) for seed in seed_N]
    np.testing.assert_array_equal(uniforms(seed_N, 7), expected)


def test_uniforms_of_neighbouring_seeds_are_uniform_and_uncorrelated():
    table = uniforms(np.arange(NUM, dtype=np.uint64), 5)
    assert table.min() >= 0 and table.max() < 1
    assert np.abs(table.mean(axis=0) - 0.5).max() < 4 * np.sqrt(1 / 12 / NUM)
    correlation = np.corrcoef(np.concatenate([table[:-1], table[1:]], axis=1).T)
    assert np.abs(correlation - np.eye(10)).max() < 5 / np.sqrt(NUM)


def test_a_clips_draw_depends_on_its_seed_alone():
    seed_N = seeds(50)
    together = draw(seed_N, 171, 128, AugmentConfig())
    order = np.random.default_rng().permutation(50)
    apart = draw(seed_N[order], 171, 128, AugmentConfig())
    for name in together.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(together, name)[order], getattr(apart, name))


@pytest.mark.parametrize(("width", "height"), [(171, 128), (128, 171), (64, 64), (1000, 40), (40, 1000)])
def test_regions_lie_inside_and_keep_to_area_and_aspect(width, height):
    config = AugmentConfig(min_area=0.3, max_area=0.9, min_aspect=0.8, max_aspect=1.5)
    params = draw(seeds(), width, height, config)
    assert params.top_left.min() >= 0 and params.bottom_right.max() <= 1
    size = (params.bottom_right - params.top_left).astype(np.float64)
    pixels_N2 = size * [height, width]
    assert np.abs(pixels_N2 - np.rint(pixels_N2)).max() < 1e-3
    place_N2 = params.top_left.astype(np.float64) * [height, width]
    assert np.abs(place_N2 - np.rint(place_N2)).max() < 1e-3
    # Half a pixel more or less on either side, as rounding makes it.
    tall, wide = pixels_N2.T
    assert ((wide + 0.51) / (tall - 0.51)).min() > 0.8 and ((wide - 0.51) / (tall + 0.51)).max() < 1.5
    if max(width, height) < 1000:
        assert ((wide + 0.51) * (tall + 0.51)).min() > 0.3 * width * height
        # Where none of ten attempts fits it is the largest central region of an allowed aspect: hardly ever.
        too_large_N = (wide - 0.51) * (tall - 0.51) >= 0.9 * width * height
        assert too_large_N.sum() <= 3
        assert np.allclose(size[too_large_N].max(axis=1), 1.0, atol=1e-6)
        middle_N2 = (params.top_left + params.bottom_right)[too_large_N] / 2 * [height, width]
        assert np.abs(middle_N2 - [height / 2, width / 2]).max(initial=0.0) < 0.51
        assert np.ptp(params.top_left, axis=0).min() > 0.3  # and move about
    else:  # nothing fits: the largest central region of an allowed aspect
        assert np.allclose(size.max(axis=1), 1.0, atol=1e-6)
        middle_N2 = (params.top_left + params.bottom_right) / 2 * [height, width]
        assert np.abs(middle_N2 - [height / 2, width / 2]).max() < 0.51


def test_each_clip_uses_its_own_pictures_size():
    seed_N = seeds(3)
    width_N, height_N = np.array([171, 300, 64]), np.array([128, 100, 200])
    together = draw(seed_N, width_N, height_N, AugmentConfig())
    for n in range(3):
        alone = draw(seed_N[n : n + 1], width_N[n], height_N[n], AugmentConfig())
        np.testing.assert_array_equal(together.top_left[n], alone.top_left[0])


@pytest.mark.parametrize("colour", ["exact", "fast"])
def test_shares_of_clips_are_the_configured_probabilities(colour):
    shares = {"jitter_prob": 0.7, "grey_prob": 0.15, "blur_prob": 0.3, "flip_prob": 0.4}
    params = draw(seeds(), 171, 128, AugmentConfig(colour=colour, **shares))

    def near(share: float, wanted: float) -> bool:
        return abs(share - wanted) < 4.5 * np.sqrt(wanted * (1 - wanted) / NUM)

    assert near(params.flip.mean(), 0.4)
    assert near(params.blur.mean(), 0.3)
    is_grey_N = np.abs(params.colour - params.colour[:, :1]).max(axis=(1, 2)) < 1e-6
    assert near(is_grey_N.mean(), 0.15)
    is_plain_N = np.abs(params.colour - np.eye(3)).max(axis=(1, 2)) < 1e-6
    is_plain_N &= (params.order < 0).all(axis=1)
    assert near(is_plain_N.mean(), 0.3 * 0.85)
    if colour == "exact":
        assert near((params.order >= 0).all(axis=1).mean(), 0.7)


def test_the_exact_operators_come_in_every_order_alike():
    params = draw(seeds(), 171, 128, AugmentConfig(jitter_prob=1.0))
    assert (np.sort(params.order, axis=1) == np.arange(4)).all()
    _, counts = np.unique(params.order, axis=0, return_counts=True)
    assert len(counts) == 24 and np.abs(counts - NUM / 24).max() < 5 * np.sqrt(NUM / 24)
    assert 0.5 <= params.factors[:, :3].min() < 0.51 and 1.49 < params.factors[:, :3].max() <= 1.5
    assert np.abs(params.factors[:, 3]).max() <= 0.5 < np.abs(params.factors[:, 3]).max() + 0.01


def test_both_modes_of_colour_have_the_same_draws():
    seed_N = seeds()
    exact, fast = (draw(seed_N, 171, 128, AugmentConfig(colour=mode)) for mode in ("exact", "fast"))
    for name in ("top_left", "bottom_right", "flip", "factors", "blur"):
        np.testing.assert_array_equal(getattr(exact, name), getattr(fast, name))
    brightness_N, contrast_N = exact.factors[:, 0], exact.factors[:, 1]
    np.testing.assert_allclose(fast.contrast_offset, brightness_N * (1 - contrast_N), atol=1e-6)
    assert (fast.order < 0).all()


def fast_of(config: AugmentConfig) -> AugmentConfig:
    return config.model_copy(update={"colour": "fast"})


def test_strength_zero_changes_nothing():
    still = AugmentConfig(
        min_area=1, min_aspect=1, max_aspect=1, flip_prob=0, brightness=0, contrast=0, saturation=0, hue=0,
        grey_prob=0, blur_prob=0,
    )  # fmt: skip
    exact, params = (draw(seeds(), 64, 64, config) for config in (still, fast_of(still)))
    assert np.allclose(exact.factors, [1, 1, 1, 0])
    assert np.allclose(params.colour, np.eye(3), atol=1e-6)
    assert not params.contrast_offset.any() and not params.flip.any() and not params.blur.any()
    assert np.allclose(params.top_left, 0) and np.allclose(params.bottom_right, 1)


def test_geometric_draw_is_apart_from_the_photometric_one():
    seed_N = seeds()
    plain = draw(seed_N, 171, 128, AugmentConfig())
    for other in (
        draw(seed_N, 171, 128, AugmentConfig(jitter_prob=0, grey_prob=1, blur_prob=1)),
        draw(seed_N, 171, 128, AugmentConfig(), is_motion_N=True),
    ):
        for name in ("top_left", "bottom_right", "flip"):
            np.testing.assert_array_equal(getattr(plain, name), getattr(other, name))


def test_motion_clips_are_grey_and_otherwise_left_alone():
    is_motion_N = np.arange(NUM) % 3 == 0
    config = AugmentConfig(jitter_prob=1, blur_prob=1, grey_prob=0.5)
    exact = draw(seeds(), 171, 128, config, is_motion_N)
    assert (exact.order[is_motion_N] < 0).all() and (exact.order[~is_motion_N] >= 0).all()
    assert np.allclose(exact.colour[is_motion_N], LUMA) and not exact.offset[is_motion_N].any()
    params = draw(seeds(), 171, 128, fast_of(config), is_motion_N)
    assert np.allclose(params.colour[is_motion_N], LUMA)
    assert not params.contrast_offset[is_motion_N].any() and not params.blur[is_motion_N].any()
    assert params.blur[~is_motion_N].all() and params.contrast_offset[~is_motion_N].all()


def operators(b: float, k: float, s: float, angle: float):
    """Brightness, contrast, saturation and hue one at a time, on (H, W, 3) float64."""
    yiq = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
    hue = np.linalg.inv(yiq) @ turn @ yiq
    luma = lambda x: (x @ LUMA)[..., None]  # noqa: E731
    return (
        lambda x: b * x,
        lambda x: k * x + (1 - k) * luma(x).mean(),
        lambda x: s * x + (1 - s) * luma(x),
        lambda x: x @ hue.T,
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::3])
def test_one_matrix_equals_the_operators_in_any_order(order):
    rng = np.random.default_rng()
    picture = rng.uniform(0, 255, (6, 7, 3))
    b, k, s = rng.uniform(0.5, 1.5, 3)
    angle = rng.uniform(-np.pi, np.pi)
    expected = picture
    steps = operators(b, k, s, angle)
    for index in order:
        expected = steps[index](expected)
    matrix, offset = colour_matrix(*(np.array([value]) for value in (b, k, s, angle)))
    got = picture @ matrix[0].T + offset[0] * (picture @ LUMA).mean()
    np.testing.assert_allclose(got, expected, atol=2e-2)  # the YIQ table has six digits


def test_hue_keeps_luma_and_grey():
    angle_N = np.random.default_rng().uniform(-np.pi, np.pi, 50)
    one = np.ones(50)
    matrix, offset = colour_matrix(one, one, one, angle_N)
    assert np.allclose(LUMA @ matrix, LUMA) and not offset.any()
    assert np.allclose(matrix @ np.ones(3), 1.0)


def test_a_third_of_a_turn_takes_red_to_green_and_back_to_blue():
    one = np.ones(2)
    matrix, _ = colour_matrix(one, one, one, np.array([1, -1]) * 2 * np.pi / 3)
    assert np.argmax(matrix[0] @ [1, 0, 0]) == 1
    assert np.argmax(matrix[1] @ [1, 0, 0]) == 2


def test_saturation_zero_is_grey_whatever_the_hue():
    rng = np.random.default_rng()
    matrix, _ = colour_matrix(np.ones(9), np.ones(9), np.zeros(9), rng.uniform(-3, 3, 9))
    assert np.allclose(matrix, LUMA)


@pytest.mark.parametrize("crop", [112, 128, 64, 33])
def test_centre_crop_is_the_middle_of_the_resized_picture(crop):
    rows, columns = evaluation_size(crop)
    assert rows == crop and columns == round(crop * 171 / 128)
    params = centre_crop(3, (rows, columns), crop)
    np.testing.assert_allclose(params.top_left[:, 0], 0)
    np.testing.assert_allclose(params.bottom_right[:, 0], 1)
    left = params.top_left[:, 1] * columns
    np.testing.assert_allclose(left, round((columns - crop) / 2), atol=1e-4)
    np.testing.assert_allclose(params.bottom_right[:, 1] * columns - left, crop, atol=1e-4)
    assert np.allclose(params.colour, np.eye(3)) and not params.flip.any() and not params.blur.any()


def test_centre_crop_larger_than_the_picture_is_a_config_error():
    with pytest.raises(ConfigError, match=r"eval.resize 100 x 200 is smaller than data.crop_size 112"):
        centre_crop(1, (100, 200), 112)
