"""Procedural action videos: the same from the same seed, never shared between splits, equally lively."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slicfast.data.synthetic import MARKER, SyntheticConfig, plan, render, write_dataset
from slicfast.data.synthetic_figures import ACTIONS
from slicfast.errors import ConfigError, DataError

SMALL = SyntheticConfig(
    actions=("walk", "wave"),
    train_groups=1,
    val_groups=1,
    test_groups=1,
    min_videos=1,
    max_videos=2,
    width=64,
    height=48,
    num_frames=6,
)
DEMO_MEANS = (74.580, 57.500, 46.142)  # red, green, blue of the demo's first video
HARD: dict[str, Any] = {
    "width": 64,
    "height": 48,
    "camera": 0.4,
    "figure_size": (0.45, 0.9),
    "place": 0.2,
    "rise": 0.12,
    "glide": 0.3,
}


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.mp4"))
    }


def test_the_same_seed_gives_the_same_files_whatever_the_number_of_processes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    summary = write_dataset(tmp_path / "a", SMALL, workers=1)
    write_dataset(tmp_path / "b", SMALL, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert set(digests(tmp_path / "a")) == {video.id for video in plan(SMALL)}
    assert summary.num_written == sum(summary.num_videos.values()) == len(plan(SMALL))
    assert seen == [(k + 1, len(plan(SMALL))) for k in range(len(plan(SMALL)))]


def test_another_seed_gives_other_pictures() -> None:
    other = replace(SMALL, seed=1)
    assert np.abs(render(plan(SMALL)[0], SMALL).astype(int) - render(plan(other)[0], other)).mean() > 5


def test_files_decode_to_what_was_drawn(tmp_path: Path) -> None:
    import av

    write_dataset(tmp_path, SMALL, workers=1)
    for video in plan(SMALL)[:2]:
        with av.open(str(tmp_path / video.id)) as container:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
            assert container.streams.video[0].average_rate == SMALL.fps
        drawn = render(video, SMALL)
        assert frames.shape == drawn.shape == (6, 48, 64, 3)
        assert np.abs(frames.astype(int) - drawn).mean() < 8  # lossy, but the same picture


def test_no_two_splits_or_groups_share_a_scene() -> None:
    config = SyntheticConfig()
    videos = plan(config)
    splits_of: dict[tuple[int, ...], set[str]] = {}
    actions_of: dict[tuple[int, ...], set[str]] = {}
    for video in videos:
        splits_of.setdefault(video.scene_key, set()).add(video.split)
        actions_of.setdefault(video.scene_key, set()).add(video.action)
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert all(len(actions) == 1 for actions in actions_of.values())
    assert len(splits_of) == len(config.actions) * 17
    assert len({video.video_key for video in videos}) == len({video.id for video in videos}) == len(videos)
    # the streams do differ: no scene of one split looks like one of another
    first = {v.scene_key: v for v in videos if v.action == "walk"}
    means = np.stack([render(v, replace(config, num_frames=1)).mean((0, 1, 2)) for v in first.values()])
    assert len(np.unique(means.round(3), axis=0)) == len(means)


def test_a_scene_holds_four_to_seven_videos_of_one_person() -> None:
    videos = plan(SyntheticConfig())
    sizes = np.unique([hash(video.scene_key) for video in videos], return_counts=True)[1]
    assert set(sizes.tolist()) == {4, 5, 6, 7}


def test_shared_scenes_show_every_class() -> None:
    config = replace(SMALL, shared_scenes=True)
    actions_of: dict[tuple[int, ...], set[str]] = {}
    for video in plan(config):
        actions_of.setdefault(video.scene_key, set()).add(video.action)
    assert all(actions == set(config.actions) for actions in actions_of.values())


def test_all_classes_move_equally_much() -> None:
    """Mean absolute frame difference of the same people at the same places doing each action."""
    config = SyntheticConfig(
        actions=tuple(ACTIONS),
        train_groups=20,
        val_groups=0,
        test_groups=0,
        min_videos=1,
        max_videos=1,
        shared_scenes=True,
        camera=0.0,
        glide=0.0,
        num_frames=24,
        width=96,
        height=72,
    )
    energy: dict[str, list[float]] = {}
    for video in plan(config):
        clip = render(video, config).astype(np.float32)
        energy.setdefault(video.action, []).append(float(np.abs(np.diff(clip, axis=0)).mean()))
    means = np.array([np.mean(values) for values in energy.values()])
    assert means.max() / means.min() < 1.5, dict(zip(energy, means.round(2), strict=True))


def test_with_a_moving_camera_energy_does_not_tell_the_class() -> None:
    """A class's energies lie among the others': the nearest mean guesses little better than chance."""
    config = SyntheticConfig(
        train_groups=8, val_groups=0, test_groups=0, min_videos=2, max_videos=2, num_frames=16, **HARD
    )
    videos = plan(config)
    energy_V = np.array(
        [np.abs(np.diff(render(video, config).astype(np.int16), axis=0)).mean() for video in videos]
    )
    class_V = np.array([config.actions.index(video.action) for video in videos])
    is_first_V = np.array([video.group <= 4 for video in videos])
    mean_C = np.array([energy_V[is_first_V & (class_V == label)].mean() for label in range(8)])
    guess_V = np.abs(energy_V[~is_first_V, None] - mean_C).argmin(axis=1)
    assert (guess_V == class_V[~is_first_V]).mean() < 0.35
    low, high = np.quantile(energy_V, [0.25, 0.75])
    for label in range(8):
        own_V = energy_V[class_V == label]
        assert own_V.min() < high and own_V.max() > low


def test_frame_differences_tell_classes_on_a_tripod_and_hardly_where_places_and_sizes_vary() -> None:
    def recall(**factors: object) -> float:
        config = SyntheticConfig(
            train_groups=5, val_groups=3, test_groups=0, min_videos=2, max_videos=2, num_frames=16, **factors
        )
        moved: dict[str, list[np.ndarray]] = {"train": [], "val": []}
        actions: dict[str, list[str]] = {"train": [], "val": []}
        for video in plan(config):
            clip = render(video, config).astype(np.float32).mean(axis=3)
            small = np.abs(np.diff(clip, axis=0)).mean(axis=0)
            moved[video.split].append(small.reshape(24, 2, 32, 2).mean(axis=(1, 3)).reshape(-1))
            actions[video.split].append(video.action)
        unit = {split: np.stack(rows) for split, rows in moved.items()}
        unit = {split: rows / np.linalg.norm(rows, axis=1, keepdims=True) for split, rows in unit.items()}
        nearest = (unit["val"] @ unit["train"].T).argmax(axis=1)
        found = [actions["train"][place] == own for place, own in zip(nearest, actions["val"], strict=True)]
        return float(np.mean(found))

    easy = {"camera": 0.0, "glide": 0.0, "place": 0.0, "rise": 0.0}
    assert recall(width=64, height=48, **easy) > 0.5
    assert recall(**HARD) < 0.3  # chance is 0.125


def test_a_figure_stays_within_the_sizes_and_places_asked_for() -> None:
    """The rows and columns that a bright figure covers before a dark wall."""
    still = replace(SMALL, camera=0.0, texture=0.0, glide=0.0, num_frames=1, width=96, height=72)
    small = replace(still, figure_size=(0.3, 0.35), place=0.0, rise=0.0)
    large = replace(small, figure_size=(0.75, 0.8))
    aside = replace(small, place=0.3)

    def bright(config: SyntheticConfig) -> list[np.ndarray]:
        return [np.argwhere(render(video, config)[0].min(axis=2) > 120) for video in plan(config)]

    def heights(config: SyntheticConfig) -> float:
        return float(np.mean([np.ptp(where[:, 0]) for where in bright(config)]))

    assert heights(large) > 1.7 * heights(small)
    centres, moved = ([where[:, 1].mean() for where in bright(config)] for config in (small, aside))
    assert np.ptp(moved) > np.ptp(centres)


def test_a_set_drawn_before_a_factor_could_be_chosen_is_recognised(tmp_path: Path) -> None:
    write_dataset(tmp_path, SMALL, workers=1)
    marker = json.loads((tmp_path / MARKER).read_text())
    for factor in ("figure_size", "rise"):
        del marker[factor]
    (tmp_path / MARKER).write_text(json.dumps(marker))
    assert write_dataset(tmp_path, SMALL, workers=1).num_written == 0
    with pytest.raises(DataError, match=r"other parameters \(rise\)"):
        write_dataset(tmp_path, replace(SMALL, rise=0.2), workers=1)


def test_the_demo_draws_what_it_always_drew() -> None:
    """Means, not a digest: another OpenCV may round a pixel otherwise."""
    config = SyntheticConfig()
    video = plan(config)[0]
    assert video.id == "train/walk/walk_g01_c01.mp4"
    clip = render(video, config).astype(np.float64)
    np.testing.assert_allclose(clip.mean(axis=(0, 1, 2)), DEMO_MEANS, atol=0.05)


def test_a_tripod_leaves_the_background_still_and_a_hand_does_not() -> None:
    video = plan(SMALL)[0]
    tripod, hand = replace(SMALL, camera=0.0, texture=1.0), replace(SMALL, camera=1.0, texture=1.0)
    corner = np.s_[:, :8, :8]
    assert np.ptp(render(video, tripod)[corner].astype(int), axis=0).max() == 0
    assert np.ptp(render(video, hand)[corner].astype(int), axis=0).max() > 0


def test_a_complete_set_is_left_and_an_interrupted_one_completed(tmp_path: Path) -> None:
    write_dataset(tmp_path, SMALL, workers=1)
    before = digests(tmp_path)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    lost = next(iter(before))
    (tmp_path / lost).unlink()
    assert write_dataset(tmp_path, SMALL, workers=1).num_written == 1
    assert digests(tmp_path) == before
    assert all((tmp_path / name).stat().st_mtime_ns == times[name] for name in before if name != lost)
    assert write_dataset(tmp_path, SMALL, workers=1).num_written == 0


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", SMALL, workers=1)
    with pytest.raises(DataError, match=r"other parameters \(seed\)"):
        write_dataset(tmp_path / "set", replace(SMALL, seed=3), workers=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="new or empty folder"):
        write_dataset(tmp_path / "mine", SMALL, workers=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": ("wavee",)}, "did you mean 'wave'"),
        ({"codec": "vp9"}, "codec must be one of"),
        ({"min_videos": 8}, "min <= max"),
        ({"width": 63}, "even"),
        ({"figure_size": (0.7, 0.5)}, "figure_size must be 0.1 <= least <= greatest"),
        ({"camera": -1.0}, "camera must not be negative"),
    ],
)
def test_impossible_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(replace(SMALL, **change))  # type: ignore[arg-type]
