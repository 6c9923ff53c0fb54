"""Which clips make a batch: against the method's rules, on fresh random data sets."""

from __future__ import annotations

import numpy as np
import pytest

from slicfast.config import Config
from slicfast.data.requests import Role, View, frame_indices, make_requests, shuffled
from slicfast.data.sampling import SampleSampler, evenly_spaced, take_part
from slicfast.errors import ConfigError, DataError


def sampler_of(num_frames, *overrides, batch_size=8, rows=None):
    config = Config.load(None, [f"train.batch_size={batch_size}", "data.clip_length=8", *overrides])
    rows = np.arange(len(num_frames)) if rows is None else rows
    return SampleSampler(rows, num_frames, config)


def roles(batch, num_roles=3):
    return batch.reshape(num_roles, -1)


def random_lengths(num=40, low=16):
    return np.random.default_rng().integers(low, 90, num)


def test_same_seed_epoch_and_step_give_the_same_batch_in_any_order():
    lengths = random_lengths()
    first, second = sampler_of(lengths), sampler_of(lengths)
    wanted = [first.batch(epoch, step) for epoch in range(3) for step in range(5)]
    shuffled = {(e, s): second.batch(e, s) for e in (2, 0, 1) for s in (4, 1, 0, 3, 2)}
    assert all(np.array_equal(shuffled[divmod(i, 5)], batch) for i, batch in enumerate(wanted))
    assert not np.array_equal(wanted[0], sampler_of(lengths, "seed=1").batch(0, 0))


def test_an_epoch_visits_every_video_once_as_anchor():
    sampler = sampler_of(random_lengths(40))
    anchors = np.concatenate([roles(sampler.batch(3, step))[0]["video"] for step in range(5)])
    assert sorted(anchors) == list(range(40))


def test_anchor_again_is_the_same_window_with_another_draw():
    anchor, _, again = roles(sampler_of(random_lengths(), "sampling.anchor_start=random").batch(0, 0))
    assert np.array_equal(anchor["video"], again["video"])
    assert np.array_equal(anchor["start"], again["start"])
    assert (anchor["seed"] != again["seed"]).all()
    assert (anchor["role"] == Role.ANCHOR).all() and (again["role"] == Role.ANCHOR_AGAIN).all()


def test_positive_is_another_video_of_the_same_cluster_or_the_video_itself_when_alone():
    lengths = random_lengths(60)
    labels = np.random.default_rng().integers(0, 12, 60)
    sampler = sampler_of(lengths, "sampling.same_video_prob=0")
    sampler.set_labels(labels)
    sizes = np.bincount(labels)
    for step in range(sampler.steps_per_epoch):
        anchor, positive, _ = roles(sampler.batch(0, step))
        assert np.array_equal(labels[anchor["video"]], labels[positive["video"]])
        alone = sizes[labels[anchor["video"]]] == 1
        assert ((anchor["video"] == positive["video"]) == alone).all()


def test_mates_are_drawn_uniformly():
    sampler = sampler_of(np.full(8, 40), "sampling.same_video_prob=0", batch_size=8)
    sampler.set_labels(np.array([0, 0, 0, 0, 0, 1, 1, 2]))
    pairs = np.zeros((8, 8), dtype=int)
    for epoch in range(2000):
        anchor, positive, _ = roles(sampler.batch(epoch, 0))
        np.add.at(pairs, (anchor["video"], positive["video"]), 1)
    mates = pairs[:5, :5][~np.eye(5, dtype=bool)]
    assert mates.min() > 420 and mates.max() < 580  # 500 expected, deviation 19
    assert pairs[5, 6] == pairs[6, 5] == pairs[7, 7] == 2000


@pytest.mark.parametrize("prob", [0.0, 0.2, 1.0])
def test_share_of_same_video_positives_follows_the_probability(prob):
    sampler = sampler_of(np.full(64, 40), f"sampling.same_video_prob={prob}", batch_size=64)
    sampler.set_labels(np.zeros(64, dtype=np.int64))
    same = [(b[0]["video"] == b[1]["video"]).mean() for b in (roles(sampler.batch(e, 0)) for e in range(60))]
    assert np.mean(same) == pytest.approx(prob, abs=0.04)


def test_a_round_may_set_the_probability_and_the_next_one_the_configured_again():
    sampler = sampler_of(np.full(64, 40), "sampling.same_video_prob=0", batch_size=64)
    together = np.zeros(64, dtype=np.int64)
    shares = []
    for prob in (1.0, 0.0, None):
        sampler.set_labels(together, prob)
        anchor, positive, _ = roles(sampler.batch(0, 0))
        shares.append((anchor["video"] == positive["video"]).mean())
    assert shares == [1, 0, 0]


def test_positive_starts_after_the_first_window_and_ends_within_the_video():
    lengths = random_lengths(64)
    sampler = sampler_of(lengths, batch_size=64)
    starts = np.concatenate([roles(sampler.batch(e, 0))[1]["start"] for e in range(50)])
    videos = np.concatenate([roles(sampler.batch(e, 0))[1]["video"] for e in range(50)])
    assert (starts >= 8).all() and (starts <= lengths[videos] - 8).all()
    longest = np.argmax(lengths)
    assert len(np.unique(starts[videos == longest])) > 10


def test_random_anchor_and_its_positive_do_not_overlap():
    lengths = random_lengths(64)
    sampler = sampler_of(
        lengths,
        "sampling.anchor_start=random",
        "sampling.same_video_prob=1",
        "data.clip_stride=1",
        batch_size=64,
    )
    for epoch in range(30):
        anchor, positive, _ = roles(sampler.batch(epoch, 0))
        assert (positive["start"] >= 0).all()
        assert (positive["start"] + 8 <= lengths[positive["video"]]).all()
        possible = lengths[anchor["video"]] >= 24  # shorter ones may have no window apart
        assert (np.abs(anchor["start"] - positive["start"]) >= 8)[possible].all()


def test_motion_view_falls_on_positives_and_anchors_again_only():
    sampler = sampler_of(np.full(64, 40), "motion.prob=0.25", batch_size=64)
    views = np.stack([roles(sampler.batch(e, 0))["view"] for e in range(40)])
    assert (views[:, 0] == View.RGB).all()
    assert views[:, 1].mean() == pytest.approx(0.25, abs=0.03)
    assert views[:, 2].mean() == pytest.approx(0.25, abs=0.03)
    none = sampler_of(np.full(64, 40), "motion.view=none", batch_size=64)
    assert (none.batch(0, 0)["view"] == View.RGB).all()


@pytest.mark.parametrize("anchor_start", ["first", "random"])
def test_windows_of_flow_end_with_the_last_field(anchor_start):
    lengths = random_lengths(40, low=16)
    overrides = ["motion.prob=0.5", f"sampling.anchor_start={anchor_start}", "data.clip_stride=2"]
    batches = [sampler_of(lengths, *overrides, f"motion.view={view}") for view in ("flow", "none")]
    num_cut = 0
    for epoch in range(30):
        flow, plain = (sampler.batch(epoch, 0) for sampler in batches)
        shown = flow["view"] == View.FLOW
        assert 0 < shown[8:].sum() < 16 and not shown[:8].any()
        assert (flow["start"] + 15 <= lengths[flow["video"]] - 1)[shown].all()  # 8 fields of every second
        np.testing.assert_array_equal(flow["video"], plain["video"])
        np.testing.assert_array_equal(flow["seed"], plain["seed"])
        moved = plain["start"] - flow["start"]
        assert set(moved[shown]) <= {0, 1} and not moved[~shown].any()
        num_cut += moved.sum()
    assert num_cut


def test_videos_without_flow_are_shown_as_pictures():
    config = Config.load(None, ["train.batch_size=64", "motion.view=flow", "motion.prob=1"])
    has_flow = np.arange(64) % 2 == 0
    batch = SampleSampler(np.arange(64), np.full(64, 40), config, has_flow).batch(0, 0)[64:]
    np.testing.assert_array_equal(batch["view"] == View.FLOW, has_flow[batch["video"]])
    assert set(batch["view"]) == {View.FLOW, View.RGB}


ALL_ROLES = (
    *("loss.relative_speed_weight=1", "loss.intra_negative_weight=1", "loss.nce_weight=1"),
    "sampling.same_video_prob=0",
)


def by_role(batch, size):
    return {Role(clips["role"][0]): clips for clips in batch.reshape(-1, size)}


def test_further_roles_change_no_draw_of_the_others():
    lengths = random_lengths()
    for overrides in ((), ("sampling.anchor_start=random", "motion.prob=0.5")):
        few = sampler_of(lengths, *overrides, "sampling.same_video_prob=0").batch(2, 3)
        all_roles = sampler_of(lengths, *overrides, *ALL_ROLES).batch(2, 3)
        assert len(all_roles) == 6 * 8 and np.array_equal(all_roles[: len(few)], few)


def test_a_fast_clip_shows_the_positives_video_at_twice_the_stride_after_its_first_window():
    lengths = random_lengths(64)
    sampler = sampler_of(lengths, *ALL_ROLES, "data.clip_stride=1", batch_size=64)
    sampler.set_labels(np.zeros(64, dtype=np.int64))
    num_with_room = 0
    for epoch in range(30):
        clips = by_role(sampler.batch(epoch, 0), 64)
        fast, positive = clips[Role.FAST], clips[Role.POSITIVE]
        assert np.array_equal(fast["video"], positive["video"])
        assert (fast["stride"] == 2).all() and (fast["view"] == View.RGB).all()
        span, length = 15, lengths[fast["video"]]
        assert (fast["start"] + span <= length).all()
        has_room = length >= 8 + span
        assert (fast["start"] >= np.where(has_room, 8, length - span)).all()
        num_with_room += has_room.sum()
    assert 0 < num_with_room < 64 * 30
    starts = np.concatenate([by_role(sampler.batch(e, 0), 64)[Role.FAST]["start"] for e in range(30)])
    assert len(np.unique(starts)) > 20


def test_a_shuffled_clip_is_any_window_of_the_anchors_video():
    lengths = random_lengths(64)
    sampler = sampler_of(lengths, *ALL_ROLES, batch_size=64)
    starts = []
    for epoch in range(50):
        clips = by_role(sampler.batch(epoch, 0), 64)
        window = clips[Role.SHUFFLED]
        assert np.array_equal(window["video"], clips[Role.ANCHOR]["video"])
        assert (window["start"] + 8 <= lengths[window["video"]]).all()
        starts.append(window["start"][np.argsort(window["video"])])
    assert min(np.min(starts, axis=0)) == 0
    longest = np.argmax(lengths)
    assert len({start[longest] for start in starts}) > 10


def test_a_difference_clip_is_the_anchors_window():
    clips = by_role(sampler_of(random_lengths(), *ALL_ROLES, "motion.view=none").batch(0, 0), 8)
    assert (clips[Role.DIFFERENCE]["view"] == View.DIFFERENCE).all()
    for field in ("video", "start", "stride"):
        assert np.array_equal(clips[Role.DIFFERENCE][field], clips[Role.ANCHOR][field])


def test_only_shuffled_clips_lose_the_order_of_time():
    """The published code shuffles every clip."""
    batch = sampler_of(np.full(8, 60), *ALL_ROLES).batch(0, 0)
    frames = frame_indices(batch, 8, 60)
    in_order = (np.diff(frames, axis=1) == batch["stride"][:, None]).all(axis=1)
    assert np.array_equal(in_order, batch["role"] != Role.SHUFFLED)


@pytest.mark.parametrize("length", [3, 4, 7, 16])
def test_frames_are_shuffled_in_blocks_of_two_and_never_left_in_order(length):
    seeds = np.random.default_rng().integers(0, 2**64, 3000, dtype=np.uint64)
    places = shuffled(seeds, length)
    assert np.array_equal(np.sort(places, axis=1), np.tile(np.arange(length), (3000, 1)))
    assert not (places == np.arange(length)).all(axis=1).any()
    for row in places[:50]:
        for first in range(0, length - 1, 2):
            at = list(row).index(first)
            assert row[at + 1] == first + 1
    assert np.array_equal(shuffled(seeds[7:9], length), places[7:9])
    num_blocks = -(-length // 2)
    if num_blocks > 2:  # the first block stays in its place less often than one time in `num_blocks`
        assert (places[:, 0] == 0).mean() < 1 / num_blocks + 0.03
        assert len(np.unique(places, axis=0)) > min(4, num_blocks)


def test_requests_name_store_rows_not_positions():
    rows = np.array([3, 7, 11, 20])
    batch = sampler_of(np.full(4, 40), batch_size=4, rows=rows).batch(0, 0)
    assert set(batch["video"]) <= set(rows.tolist())


def test_without_temporal_term_there_is_no_third_clip():
    sampler = sampler_of(np.full(8, 40), "loss.temporal_weight=0")
    assert len(sampler.batch(0, 0)) == 16


@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_parts_of_a_batch_are_disjoint_and_whole(num_parts):
    batch = sampler_of(random_lengths()).batch(0, 0)
    parts = [roles(take_part(batch, 3, part, num_parts)) for part in range(num_parts)]
    assert np.array_equal(np.concatenate(parts, axis=1), roles(batch))


def test_too_few_videos_and_too_large_a_batch_are_named():
    with pytest.raises(DataError, match="at least 2 videos"):
        sampler_of(np.array([40]), batch_size=2)
    with pytest.raises(ConfigError, match="only 5 videos"):
        sampler_of(np.full(5, 40))


def test_evaluation_clips_are_evenly_spaced_from_first_to_last_window():
    requests = evenly_spaced(np.array([4, 9]), np.array([100, 16]), 10, clip_span=16, stride=1)
    assert requests["video"].tolist() == [4] * 10 + [9] * 10
    centres = requests["start"][:10] + 8
    assert centres[0] == 8 and centres[-1] == 92
    assert set(np.diff(centres)) <= {9, 10}
    assert (requests["start"][10:] == 0).all()
    assert evenly_spaced(np.array([0]), np.array([100]), 1, clip_span=16, stride=1)["start"][0] == 42


def test_short_videos_repeat_their_last_frame():
    frames = frame_indices(make_requests([0, 0], [0, 3], stride=2), 4, [5, 20])
    assert frames.tolist() == [[0, 2, 4, 4], [3, 5, 7, 9]]
