import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_reference import clip as reference_clip
from small_data import encode_pictures, record_of, smooth_video

from slicfast.config import AugmentConfig, DataConfig, MotionConfig
from slicfast.data.augment import draw
from slicfast.data.loader import ClipBatch, ClipLoader
from slicfast.data.requests import Requests, Role, View, make_requests
from slicfast.data.requests import shuffled as shuffled_places
from slicfast.data.store import ClipStore
from slicfast.data.stores.writer import StoreSettings, StoreWriter
from slicfast.errors import ConfigError, RunError

pytest.importorskip("nvidia.dali")

LENGTH, CROP = 4, 24
CONFIG = DataConfig(clip_length=LENGTH, crop_size=CROP)


def loader_of(store: ClipStore, config: DataConfig = CONFIG, **options) -> ClipLoader:
    settings = {"augment": AugmentConfig(), "num_threads": 2, "max_batch": 8}
    return ClipLoader(store, config, **{**settings, **options})


def random_requests(num: int, seed: int, view_N=View.RGB) -> Requests:
    rng = np.random.default_rng(seed)
    seed_N = rng.integers(0, 2**64, num, dtype=np.uint64)
    starts = rng.integers(0, 30, num)
    return make_requests(rng.integers(0, 12, num), starts, view_N=view_N, role=Role.ANCHOR, seed_N=seed_N)


def loader_threads() -> int:
    return sum(thread.name == "slicfast-loader" for thread in threading.enumerate())


@pytest.fixture(scope="module")
def spoilt_store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Eight videos with right checksums; nothing of 3 decodes, nor picture 10 of 5, and 6 has no headers."""
    path = tmp_path_factory.mktemp("spoilt") / "store"
    rng = np.random.default_rng(3)
    labels: dict[str, str | None] = {}
    with StoreWriter(path, StoreSettings(short_side=32)) as writer:
        for number in range(8):
            pictures = encode_pictures(smooth_video(rng, 30, 40, 32))
            for k, picture in enumerate(pictures):
                if number == 3 or (number == 5 and k == 10):
                    pictures[k] = picture[:-60]
                elif number == 6:
                    pictures[k] = bytes(200)
            video_id = f"video_{number}.avi"
            labels[video_id] = None
            writer.add(record_of(video_id, None, pictures, 40, 32), b"".join(pictures))
        writer.finish(labels, {"train": list(labels)})
    return ClipStore(path)


def test_clips_agree_with_a_plain_reference(tiny_store):
    config = CONFIG.model_copy(update={"mean": (0.4, 0.5, 0.6), "std": (0.3, 0.2, 0.25)})
    augment = AugmentConfig(colour="fast", jitter_prob=1.0, blur_prob=0.0)
    requests = random_requests(8, seed=int(np.random.default_rng().integers(1000)))
    requests["start"][0] = tiny_store.num_frames[requests["video"][0]] - 2  # repeats its last frame
    requests["stride"][1] = 3
    (batch,) = loader_of(tiny_store, config, augment=augment).load([requests])
    params = draw(
        requests["seed"], tiny_store.width[requests["video"]], tiny_store.height[requests["video"]], augment
    )
    clamped = 0
    for n, request in enumerate(requests):
        last = int(tiny_store.num_frames[request["video"]]) - 1
        frames = np.minimum(request["start"] + request["stride"] * np.arange(LENGTH), last)
        expected = reference_clip(tiny_store.frames(request["video"], frames), params, n, CROP)
        clamped += (expected > 255).sum() + (expected < 0).sum()
        got = (batch.clips[n].permute(1, 2, 3, 0).double().numpy() * config.std + config.mean) * 255
        widened = 0.6 + 1.1 * np.abs(params.colour[n]).sum(axis=1).max()  # rounded before colour and after
        error = np.abs(got - expected.clip(0, 255))
        assert error.max() < widened and error.mean() < 0.5 * widened
    assert clamped  # so the clamp has been tried
    np.testing.assert_array_equal(batch.requests, requests)


def test_clips_are_in_channels_last_order_and_in_memory_of_their_own(tiny_store):
    loader = loader_of(tiny_store)
    held = list(loader.load(random_requests(5, seed) for seed in range(4)))
    assert len({batch.clips.data_ptr() for batch in held}) == len(held)
    for batch in held:
        clips = batch.clips
        assert clips.shape == (5, 3, LENGTH, CROP, CROP) and clips.dtype == torch.float32
        assert clips.stride() == (LENGTH * CROP * CROP * 3, 1, CROP * CROP * 3, CROP * 3, 3)
        assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    again = list(loader.load(random_requests(5, seed) for seed in range(4)))
    assert all(torch.equal(a.clips, b.clips) for a, b in zip(held, again, strict=True))


@pytest.mark.parametrize("num_threads", [1, 4])
def test_batches_depend_on_requests_alone(tiny_store, num_threads):
    requests = [random_requests(8, seed, view_N=np.arange(8) % 3 == 0) for seed in range(3)]
    plain = list(loader_of(tiny_store).load(requests))
    config = CONFIG.model_copy(update={"prefetch": 1})
    other = loader_of(tiny_store, config, num_threads=num_threads, max_batch=24)
    for a, b in zip(plain, other.load(requests), strict=True):
        assert torch.equal(a.clips, b.clips)
    (joined,) = other.load([np.concatenate(requests)])
    assert torch.equal(joined.clips, torch.cat([batch.clips for batch in plain]))


def test_a_short_last_batch_and_several_passes_are_fine(tiny_store):
    loader = loader_of(tiny_store)
    for _ in range(3):
        sizes = [len(batch.clips) for batch in loader.load([random_requests(n, n) for n in (8, 8, 3, 1)])]
        assert sizes == [8, 8, 3, 1]
    assert loader.num_clips == 60 and loader.num_replaced == 0 and loader.wait_seconds > 0
    assert list(loader.load([])) == []


def test_evaluation_has_no_randomness(tiny_store):
    requests = random_requests(6, 0)
    reseeded = requests.copy()
    reseeded["seed"] += 1
    loader = loader_of(tiny_store, augment=None)
    first, second = loader.load([requests, reseeded])
    assert torch.equal(first.clips, second.clips)
    (wider,) = loader_of(tiny_store, augment=None, resize=(30, 60)).load([requests])
    assert not torch.equal(first.clips, wider.clips)


def test_a_resize_below_the_crop_is_told_at_once(tiny_store):
    with pytest.raises(ConfigError, match=r"eval\.resize 20 x 40"):
        loader_of(tiny_store, augment=None, resize=(20, 40))


def test_motion_clips_are_differences_of_the_grey_clip(tiny_store):
    augment = AugmentConfig(jitter_prob=0.0, grey_prob=1.0, blur_prob=0.0, colour="fast")
    requests = random_requests(6, 1, view_N=[0, 1, 0, 1, 1, 0])
    as_pictures = requests.copy()
    as_pictures["view"] = View.RGB
    loader = loader_of(tiny_store, augment=augment, motion=MotionConfig(gain=3.0))
    mixed, plain = (
        255 * (batch.clips.permute(0, 2, 3, 4, 1).double().numpy() * CONFIG.std + CONFIG.mean)
        for batch in loader.load([requests, as_pictures])
    )
    expected = plain.copy()
    changes = np.diff(plain, axis=1)[:, [*range(LENGTH - 1), LENGTH - 2]]
    expected[[1, 3, 4]] = (127.5 + 3.0 * changes).clip(0, 255)[[1, 3, 4]]
    np.testing.assert_allclose(mixed, expected, atol=0.01)


def test_clips_that_do_not_decode_are_replaced_alike_in_every_run(spoilt_store):
    config = CONFIG.model_copy(update={"max_bad_share": 1.0})
    video_N = np.arange(8)
    batches = [
        make_requests(video_N, np.full(8, start), role=Role.ANCHOR, seed_N=video_N) for start in (0, 8, 20)
    ]
    loader = loader_of(spoilt_store, config)
    first = list(loader.load(batches))
    assert [batch.num_replaced for batch in first] == [2, 3, 2]
    assert loader.replaced == {"video_3.avi": 3, "video_5.avi": 1, "video_6.avi": 3}
    assert loader.num_replaced == 7
    for batch, asked in zip(first, batches, strict=True):
        changed = np.flatnonzero(batch.requests["video"] != asked["video"])
        assert set(changed) <= {3, 5, 6} and len(changed) == batch.num_replaced
        assert not np.isin(batch.requests["video"], [3, 6]).any()
    # Another order, another loader, one clip at a time: the same substitutes, the same pixels.
    singles = [batches[b][n : n + 1] for b in (2, 1, 0) for n in range(8)]
    other = list(loader_of(spoilt_store, config, num_threads=1).load(singles))
    expected = [(first[b].requests[n], first[b].clips[n]) for b in (2, 1, 0) for n in range(8)]
    for batch, (request, clip) in zip(other, expected, strict=True):
        assert batch.requests[0] == request and torch.equal(batch.clips[0], clip)


def test_sound_clips_of_a_batch_with_a_bad_one_are_as_without_it(spoilt_store):
    config = CONFIG.model_copy(update={"max_bad_share": 1.0})
    requests = make_requests([0, 3, 1], [0, 0, 4], role=Role.ANCHOR, seed_N=[1, 2, 3])
    mixed, sound = loader_of(spoilt_store, config).load([requests, requests[[0, 2]]])
    assert torch.equal(mixed.clips[[0, 2]], sound.clips)


def test_too_much_damage_stops_with_the_worst_videos(spoilt_store):
    loader = loader_of(spoilt_store)  # bears one in a hundred
    bad = make_requests([3, 1, 2, 4], np.zeros(4), role=Role.ANCHOR)
    with pytest.raises(
        RunError, match=r"11 of 44 clips .* more than data.max_bad_share 0\.01 .*'video_3\.avi'"
    ):
        for _ in loader.load(bad for _ in range(30)):
            pass
    assert loader_threads() == 0
    assert len(list(loader.load([make_requests([0], [0])] * 0))) == 0  # and can be used again


@pytest.mark.parametrize("num_taken", [0, 1, 5])
def test_closing_early_leaves_no_thread(tiny_store, num_taken):
    loader = loader_of(tiny_store)
    iterator = loader.load(random_requests(8, seed) for seed in range(10**9))
    for _ in range(num_taken):
        next(iterator)
    iterator.close()
    iterator.close()
    assert loader_threads() == 0
    with pytest.raises(StopIteration):
        next(iterator)
    (batch,) = loader.load([random_requests(8, 1)])  # nothing of the first pass is left inside
    (fresh,) = loader_of(tiny_store).load([random_requests(8, 1)])
    assert torch.equal(batch.clips, fresh.clips)


def test_dropping_the_iterator_leaves_no_thread(tiny_store):
    loader = loader_of(tiny_store)
    for _batch in loader.load(random_requests(8, seed) for seed in range(10**9)):
        break
    gc.collect()
    assert loader_threads() == 0


def test_a_loader_loads_one_thing_at_a_time(tiny_store):
    loader = loader_of(tiny_store)
    with loader.load(random_requests(8, seed) for seed in range(5)) as iterator:
        next(iterator)
        with pytest.raises(ValueError, match="still loading"):
            loader.load([])
    assert list(loader.load([])) == []


def test_running_ahead_is_bounded(tiny_store):
    asked = []

    def requests():
        for seed in range(100):
            asked.append(seed)
            yield random_requests(2, seed)

    config = CONFIG.model_copy(update={"prefetch": 3})
    with loader_of(tiny_store, config).load(requests()) as iterator:
        deadline = time.monotonic() + 20
        while len(asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(asked) == 3  # before anything is taken
        next(iterator)
        next(iterator)
        time.sleep(0.2)
        assert len(asked) == 5


def test_memory_does_not_grow_with_the_number_of_batches(tiny_store):
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    loader = loader_of(tiny_store)
    rng = np.random.default_rng(0)

    def load(num_batches: int) -> int:
        num_bytes = 0
        for batch in loader.load(random_requests(int(rng.integers(1, 9)), k) for k in range(num_batches)):
            num_bytes += batch.clips.nbytes
        return num_bytes

    load(100)  # until allocators have what they want
    before = resident_mb()
    loaded_mb = sum(load(100) for _ in range(4)) / 2**20
    assert loaded_mb > 40 and resident_mb() - before < 0.25 * loaded_mb


def test_errors_of_the_requests_come_after_the_batches_before_them(tiny_store):
    def requests():
        yield random_requests(3, 0)
        yield random_requests(3, 1)
        raise KeyError("sampler")

    iterator = loader_of(tiny_store).load(requests())
    assert isinstance(next(iterator), ClipBatch) and isinstance(next(iterator), ClipBatch)
    with pytest.raises(KeyError, match="sampler"):
        next(iterator)
    assert loader_threads() == 0


def test_a_batch_larger_than_promised_is_refused(tiny_store):
    with pytest.raises(ValueError, match="1 to 8 clips; got 9"):
        next(loader_of(tiny_store).load([random_requests(9, 0)]))


WITHOUT_DALI = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "nvidia.dali":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from slicfast.config import AugmentConfig, DataConfig
from slicfast.data.loader import ClipLoader
from slicfast.data.store import ClipStore
from slicfast.errors import MachineError
try:
    ClipLoader(ClipStore({store!r}), DataConfig(), augment=AugmentConfig(), max_batch=2)
except MachineError as error:
    print(error)
"""


def test_without_dali_the_line_that_installs_it_is_told(tiny_store):
    script = WITHOUT_DALI.format(store=str(tiny_store.path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("NVIDIA DALI is not installed; run 'pip install nvidia-dali-"), done.stderr


INTERRUPTED = """
import os, signal, sys, threading
sys.path[:0] = {paths!r}
from test_loader import *
loader = loader_of(ClipStore({store!r}))
for number, batch in enumerate(loader.load(random_requests(8, seed) for seed in range(10**9))):
    if number == 2:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
"""


def test_ctrl_c_ends_the_program_in_the_middle_of_loading(tiny_store):
    here = Path(__file__).parent
    script = INTERRUPTED.format(paths=[str(here), str(here.parent)], store=str(tiny_store.path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -2, done.stderr  # by the signal, as Python re-raises it
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_a_shuffled_clip_has_the_same_pictures_in_another_order(tiny_store):
    config = DataConfig(clip_length=8, crop_size=CROP)
    requests = random_requests(6, seed=3)
    requests["start"] %= 12  # within the shortest video
    shuffled = requests.copy()
    shuffled["role"] = Role.SHUFFLED
    places = shuffled_places(requests["seed"], 8)
    ordered, shown = (batch.clips for batch in loader_of(tiny_store, config).load([requests, shuffled]))
    for clip, expected, order in zip(shown, ordered, torch.from_numpy(places), strict=True):
        torch.testing.assert_close(clip, expected[:, order], rtol=0, atol=0)
        assert not torch.equal(clip, expected)
