import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from slicfast.data.reading import ClipReader, DamageTally, Reading
from slicfast.data.requests import Role, make_requests
from slicfast.data.store import ClipStore, DamagedClip
from slicfast.errors import RunError

LENGTH = 4


@pytest.fixture
def damaged_store(tiny_store: ClipStore, tmp_path: Path) -> ClipStore:
    """A copy of the small store, a byte flipped in every picture of row 2 and in picture 5 of row 7."""
    shutil.copytree(tiny_store.path, tmp_path / "store")
    (shard,) = (tmp_path / "store" / "shards").glob("*.tar")
    content = bytearray(shard.read_bytes())
    for video, frames in ((2, range(tiny_store.num_frames[2])), (7, [5])):
        for picture in tiny_store.frames(video, list(frames)):
            content[content.find(picture.tobytes()) + len(picture) // 2] ^= 0x40
    shard.write_bytes(content)
    return ClipStore(tmp_path / "store")


def anchors(video_N, start_N, **others):
    return make_requests(video_N, start_N, role=Role.ANCHOR, **others)


def test_reads_the_bytes_that_requests_name(tiny_store):
    requests = make_requests([3, 8], [2, 40], stride=3)
    reading = ClipReader(tiny_store, LENGTH).read(requests)
    last = int(tiny_store.num_frames[8]) - 1
    expected = [
        *tiny_store.frames(3, [2, 5, 8, 11]),
        *tiny_store.frames(8, [min(frame, last) for frame in (40, 43, 46, 49)]),
    ]
    assert all(np.array_equal(a, b) for a, b in zip(reading.pictures, expected, strict=True))
    np.testing.assert_array_equal(reading.requests, requests)
    assert reading.damage == []


def test_a_damaged_clip_is_replaced_and_named(damaged_store):
    requests = anchors([1, 2, 7, 7], [0, 3, 2, 6], seed_N=[5, 6, 7, 8])
    reading = ClipReader(damaged_store, LENGTH).read(requests)
    assert len(reading.pictures) == 4 * LENGTH
    assert [damage.video_id for damage in reading.damage] == damaged_store.ids([2, 7])
    assert [damage.frame for damage in reading.damage] == [3, 5]
    replaced = [1, 2]
    np.testing.assert_array_equal(reading.requests[[0, 3]], requests[[0, 3]])
    assert (reading.requests["video"][replaced] != requests["video"][replaced]).all()
    for name in ("seed", "view", "role", "stride"):
        np.testing.assert_array_equal(reading.requests[name], requests[name])
    np.testing.assert_array_equal(reading.asked, requests)


def test_substitution_is_a_function_of_the_damaged_video_alone(damaged_store):
    requests = anchors(np.full(10, 2), np.arange(10), seed_N=np.random.default_rng().integers(0, 2**32, 10))
    together = ClipReader(damaged_store, LENGTH).read(requests).requests
    assert len(np.unique(together["video"])) == 1
    np.testing.assert_array_equal(together["start"], requests["start"])
    other = ClipReader(damaged_store, LENGTH)
    other.read(anchors([7], [5]))
    for n in (9, 4, 0):
        np.testing.assert_array_equal(other.read(requests[n : n + 1]).requests[0], together[n])


def test_substitutes_come_from_the_candidates(damaged_store):
    reader = ClipReader(damaged_store, LENGTH, candidates=np.array([2, 11]))
    assert reader.read(anchors([2], [3])).requests["video"][0] == 11


def test_the_start_moves_back_where_the_substitute_is_shorter(damaged_store):
    shortest = int(np.argmin(damaged_store.num_frames))
    reader = ClipReader(damaged_store, LENGTH, candidates=np.array([shortest]))
    substitute = reader.read(anchors([2], [10_000])).requests[0]
    assert substitute["start"] == damaged_store.num_frames[shortest] - LENGTH


def test_an_evaluation_clip_is_replaced_from_its_own_video(damaged_store):
    reading = ClipReader(damaged_store, LENGTH).read(make_requests([7, 7], [3, 5], role=Role.EVAL))
    assert len(reading.damage) == 2
    assert (reading.requests["video"] == 7).all()
    whole = ClipReader(damaged_store, LENGTH).read(make_requests([2], [3], role=Role.EVAL))
    assert whole.requests["video"][0] != 2  # of which nothing is left


def test_a_store_without_a_sound_clip_stops_with_what_to_do(damaged_store):
    reader = ClipReader(damaged_store, LENGTH, candidates=np.array([2]))
    with pytest.raises(RunError, match=r"video_04.*prepare it again"):
        reader.read(anchors([2], [0]))


def test_a_rejected_clip_counts_as_damaged(tiny_store):
    reader = ClipReader(tiny_store, LENGTH)
    requests = anchors([4, 4], [0, 1])
    before = reader.read(requests)
    reader.reject(requests[:1])
    after = reader.read(requests)
    assert before.damage == [] and len(after.damage) == 1
    assert "do not decode" in str(after.damage[0])
    assert after.requests["video"][0] != 4 and after.requests["video"][1] == 4


def reading_of(num: int, *damaged: str) -> Reading:
    requests = anchors(np.zeros(num), np.zeros(num))
    return Reading(requests, requests, [], [DamagedClip(name, 0, "bad") for name in damaged])


def test_the_tally_counts_and_names_each_video_once(caplog):
    tally = DamageTally(max_share=0.5)
    with caplog.at_level(logging.WARNING, "slicfast"):
        for _ in range(3):
            tally.add(reading_of(20, "a.avi", "b.avi"))
    assert (tally.num_clips, tally.num_replaced) == (60, 6)
    assert tally.replaced == {"a.avi": 3, "b.avi": 3}
    assert sorted(record.args[0].video_id for record in caplog.records) == ["a.avi", "b.avi"]


def test_the_tally_stops_a_run_with_too_much_damage():
    tally = DamageTally(max_share=0.1)
    for _ in range(10):
        tally.add(reading_of(20, *["a.avi"] * 9, "b.avi"))  # 100 of the first 1000 clips are allowed
    with pytest.raises(
        RunError, match=r"101 of 201 clips .*max_bad_share 0\.1 .*worst: 'a\.avi' \(90\), 'b\.avi' \(11\)"
    ):
        tally.add(reading_of(1, "b.avi"))


def test_the_share_is_of_all_clips_once_there_are_many():
    tally = DamageTally(max_share=0.1)
    for _ in range(30):
        tally.add(reading_of(100, *["a.avi"] * 10))
    with pytest.raises(RunError, match="301 of 3001"):
        tally.add(reading_of(1, "a.avi"))


def test_no_damage_at_all_can_be_asked_for():
    tally = DamageTally(max_share=0.0)
    tally.add(reading_of(20))
    with pytest.raises(RunError, match="1 of 21"):
        tally.add(reading_of(1, "a.avi"))
