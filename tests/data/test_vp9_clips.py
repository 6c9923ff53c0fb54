"""Clips of a VP9 store, from requests to batches: pixels, order, beside flow, damaged, on the GPU's graph."""

from __future__ import annotations

import io
import shutil
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from small_data import gliding_video, write_video

from slicfast.config import AugmentConfig, Config, DataConfig
from slicfast.data.augment import draw
from slicfast.data.backend import CpuBackend, GpuBackend
from slicfast.data.catalog import read_catalog
from slicfast.data.decoding import vp9_header
from slicfast.data.decoding.jpeg import DecodeError
from slicfast.data.decoding.jpeg_clips import JpegProbe
from slicfast.data.decoding.mixed import MixedDecoder, MixedProbe
from slicfast.data.loader import ClipLoader
from slicfast.data.prepare import prepare
from slicfast.data.preparing.flow import prepare_flow
from slicfast.data.requests import Requests, Role, View, make_requests
from slicfast.data.store import ClipStore
from slicfast.data.stores import ivf
from slicfast.data.stores.flow import FlowStore
from slicfast.data.stores.format import StoreSettings
from slicfast.data.stores.parts import Cut
from slicfast.data.stores.writer import StoreWriter, VideoRecord
from slicfast.training.loop import train

pytest.importorskip("nvidia.dali")

LENGTH, CROP = 4, 24
CONFIG = DataConfig(clip_length=LENGTH, crop_size=CROP)
VP9 = StoreSettings(short_side=32, codec="vp9")
SIZES = [(64, 48), (51, 33), (40, 61)]  # of the films; stored with odd sides too


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Eight videos of 20 to 41 pictures and three sizes, with flow; read-only."""
    root = tmp_path_factory.mktemp("vp9clips")
    for number in range(8):
        video_THWC = gliding_video(
            np.random.default_rng(number), 20 + 3 * number, *SIZES[number % 3], (1.5, 0.5)
        )
        split, label = ("train", "test")[number // 6], ("left", "right")[number % 2]
        write_video(root / "videos" / split / label / f"{number}.mkv", video_THWC, codec="ffv1")
    catalog = read_catalog(root / "videos")
    prepare(catalog, root / "store", VP9, workers=1)
    prepare_flow(catalog, root / "store", workers=1)
    return ClipStore(root / "store")


def some_requests(num: int, seed: int, view: View = View.RGB, role: Role = Role.ANCHOR) -> Requests:
    rng = np.random.default_rng(seed)
    seed_N = rng.integers(0, 2**64, num, dtype=np.uint64)
    return make_requests(
        rng.integers(0, 8, num), rng.integers(0, 25, num), view_N=view, role=role, seed_N=seed_N
    )


def loader_of(store: ClipStore, **options) -> ClipLoader:
    settings = {"augment": AugmentConfig(), "num_threads": 2, "max_batch": 16}
    return ClipLoader(store, CONFIG, **{**settings, **options})


def played(cut: Cut) -> np.ndarray:
    """The pictures asked for, (T, H, W, 3) RGB, by FFmpeg alone."""
    with av.open(io.BytesIO(cut.data.tobytes())) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])[cut.frames]


def test_decoded_clips_are_those_of_a_player(store: ClipStore) -> None:
    rows = [0, 1, 2, 7, 5]
    cuts = [
        store.cut(row, np.minimum([row, row + 3, row + 9, 99], store.num_frames[row] - 1)) for row in rows
    ]
    decoder = MixedDecoder(clip_length=LENGTH, num_threads=2, max_clips=len(cuts))
    assert not decoder.feed(cuts) and not decoder.feed(cuts[::-1][:2])  # all of it runs ahead
    taken = [decoder.take(), decoder.take()]
    clips = [batch[row] for batch in taken for row in range(len(batch))]
    for clip, cut in zip(clips, [*cuts, *cuts[::-1][:2]], strict=True):
        expected = played(cut)
        assert np.asarray(clip).shape == expected.shape
        luma = np.array([0.299, 0.587, 0.114])
        assert np.abs(np.asarray(clip) @ luma - expected @ luma).mean() < 3  # how chroma is enlarged differs


def test_batches_depend_on_requests_alone_also_beside_flow(store: ClipStore) -> None:
    flow = FlowStore(store)
    requests_N = some_requests(9, 1)
    requests_N["view"] = [View.RGB, View.FLOW, View.DIFFERENCE] * 3
    requests_N["stride"][4:] = 3
    (batch,) = loader_of(store, flow=flow).load([requests_N])
    assert batch.num_replaced == 0 and batch.clips.shape == (9, 3, LENGTH, CROP, CROP)
    single = loader_of(store, flow=flow, num_threads=1)
    for n, alone in enumerate(single.load([requests_N[n : n + 1] for n in range(9)])):
        assert torch.equal(alone.clips[0], batch.clips[n])


def test_evaluation_clips_show_what_is_stored(store: ClipStore) -> None:
    requests_N = some_requests(6, 2, role=Role.EVAL)
    (batch,) = loader_of(store, augment=None, resize=(CROP, CROP)).load([requests_N])
    shown = batch.clips.permute(0, 2, 3, 4, 1).numpy() * CONFIG.std + CONFIG.mean
    for n, request in enumerate(requests_N):
        indices = np.minimum(request["start"] + np.arange(LENGTH), store.num_frames[request["video"]] - 1)
        expected = played(store.cut(request["video"], indices)).mean(axis=(1, 2)) / 255
        np.testing.assert_allclose(shown[n].mean(axis=(1, 2)), expected, atol=0.03)


def test_the_graph_of_a_gpu_gives_the_same_clips(store: ClipStore) -> None:
    flow = FlowStore(store)
    rows = [1, 4, 2, 7, 0]
    stored: list = []
    for row in rows[:4]:
        stored.append(store.cut(row, [3, 9, 11, 18]))
    stored[2:3] = flow.fields.frames(int(flow.row_N[rows[2]]), [3, 9, 11, 18])
    width_N, height_N = store.width[rows[:4]], store.height[rows[:4]]
    augment = AugmentConfig(blur_prob=0.0)
    params = draw(np.arange(4, dtype=np.uint64), width_N, height_N, augment)
    shown = []
    for kind in (CpuBackend, GpuBackend):
        backend = kind(CONFIG, augment, torch.device("cpu"), 1, 4)
        backend.feed(stored, params, width_N, height_N)
        shown.append(backend.complete(backend.take(), params).numpy() * np.array(CONFIG.std) * 255)
    assert shown[0].shape == shown[1].shape == (4, LENGTH, CROP, CROP, 3)
    error = np.abs(shown[0] - shown[1])[:, :, 2:-2, 2:-2]  # DALI repeats the border when it shrinks
    assert error.mean() < 2 and error.mean(axis=(1, 2, 3, 4)).max() < 4


def test_damaged_packets_are_replaced_and_counted(store: ClipStore, tmp_path: Path) -> None:
    path = Path(shutil.copytree(store.path, tmp_path / "store"))
    layout = store.layout(3)
    with layout.shard.open("rb") as file:
        data = bytearray(file.read())
    data[layout.offset + layout.bounds[10] + 20] ^= 8
    (path / "shards" / layout.shard.name).write_bytes(data)
    requests_N = make_requests([3, 3, 2], [9, 16, 9], role=Role.ANCHOR, seed_N=np.arange(3))
    loader = loader_of(ClipStore(path))
    (batch,) = loader.load([requests_N])
    assert batch.num_replaced == 1 and dict(loader.replaced) == {store.id(3): 1}
    assert batch.requests["video"][0] != 3 and batch.requests["video"][1:].tolist() == [3, 2]
    assert torch.isfinite(batch.clips).all()


@pytest.fixture
def spoilt(store: ClipStore, tmp_path: Path) -> ClipStore:
    """Right checksums: video 0 is sound, 1 has noise behind its headers, 2 begins with no key frame."""
    generator = np.random.default_rng(8)
    sound = store.cut(0, range(20))
    packets = [bytes(packet) for packet in ivf.packets(sound.data.data)]
    noise = [
        packets[0][:10] + generator.bytes(len(packets[0]) - 10),
        *(generator.bytes(90) for _ in range(19)),
    ]
    width, height = int(store.width[0]), int(store.height[0])
    with StoreWriter(tmp_path / "spoilt", VP9) as writer:
        for number, chosen in enumerate((packets, noise, packets[1:])):
            pieces = [ivf.frame_header(len(packet), n) + packet for n, packet in enumerate(chosen)]
            pieces[0] = ivf.file_header(width, height, len(pieces)) + pieces[0]
            sizes, crcs = [len(piece) for piece in pieces], [zlib.crc32(piece) for piece in pieces]
            record = VideoRecord(str(number), None, 25.0, width, height, sizes, crcs)
            writer.add(record, b"".join(pieces))
        writer.finish({}, {"train": ["0", "1", "2"]})
    return ClipStore(tmp_path / "spoilt")


def test_what_is_whole_but_does_not_decode_is_replaced(spoilt: ClipStore) -> None:
    requests_N = make_requests([0, 2, 0], [2, 2, 9], role=Role.ANCHOR, seed_N=np.arange(3))
    (batch,) = loader_of(spoilt, candidates=[0]).load([requests_N])
    assert batch.num_replaced == 1 and batch.requests["video"].tolist() == [0, 0, 0]
    probe = MixedProbe(torch.device("cpu"), JpegProbe(), clip_length=LENGTH, num_threads=1)
    cuts = [spoilt.cut(row, [2, 3, 4, 5]) for row in (0, 1, 0)]
    assert probe.undecodable(cuts) == [1]
    decoder = MixedDecoder(clip_length=LENGTH, num_threads=1, max_clips=3)
    decoder.feed(cuts)
    decoder.feed(cuts[:1])
    with pytest.raises(DecodeError):
        decoder.take()
    assert len(decoder.take()) == 1  # the next batch is not lost
    (batch,) = loader_of(spoilt, candidates=[0]).load([make_requests([1, 0], [2, 2], seed_N=[1, 2])])
    assert batch.num_replaced == 1 and batch.requests["video"].tolist() == [0, 0]


def test_headers_are_read(store: ClipStore, spoilt: ClipStore) -> None:
    for row in range(len(store)):
        size = int(store.width[row]), int(store.height[row])
        for start in (0, 8, 17):
            assert vp9_header.fault(store.cut(row, [start]).data, *size) is None
        wrong = vp9_header.fault(store.cut(row, [0]).data, size[0] + 1, size[1])
        assert wrong == f"holds {size[0]} x {size[1]} pixels where the store says {size[0] + 1} x {size[1]}"
    assert vp9_header.fault(spoilt.cut(2, [0]).data, *size) is not None
    for junk in (b"", bytes(32), bytes(80), b"DKIF" + bytes(40)):
        assert vp9_header.fault(np.frombuffer(junk, np.uint8), 4, 4) == "not a VP9 packet"


def test_training_clusters_and_evaluates_on_a_vp9_store(store: ClipStore, tmp_path: Path) -> None:
    config = Config.load(
        None,
        [
            f"data.store={store.path}",
            "data.clip_length=4",
            "data.crop_size=16",
            "data.num_threads=1",
            "motion.view=flow",
            "model.name=slic_r3d_10",
            "model.width=0.125",
            "model.projection_hidden=16",
            "model.projection_dim=8",
            "cluster.interval=1",
            "eval.num_clips=2",
            "eval.interval=1",
            "eval.query_split=test",
            "train.epochs=1",
            "train.log_interval=1",
            "train.batch_size=3",
            "train.precision=fp32",
            "train.device=cpu",
        ],
    )
    train(config, tmp_path / "run")
    kinds = (tmp_path / "run/metrics.jsonl").read_text()
    assert all(f'"kind": "{kind}"' in kinds for kind in ("train", "cluster", "retrieval"))


def test_a_shuffled_clip_has_the_same_pictures_in_another_order(store: ClipStore) -> None:
    requests_N = some_requests(8, 5, role=Role.SHUFFLED)
    in_time_N = requests_N.copy()
    in_time_N["role"] = Role.ANCHOR
    loader = loader_of(store, augment=None)
    shown, ordered = (batch.clips for batch in loader.load([requests_N, in_time_N]))
    # Two blocks of two pictures: the later one comes first.
    assert torch.equal(shown, ordered.roll(2, dims=2)) and not torch.equal(shown, ordered)
