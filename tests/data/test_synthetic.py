"""Procedural action videos: the same from the same seed, never shared between splits, equally lively."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slicfast.data.synthetic import SyntheticConfig, plan, render, write_dataset
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
        ({"camera": -1.0}, "camera must not be negative"),
    ],
)
def test_impossible_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(replace(SMALL, **change))  # type: ignore[arg-type]
