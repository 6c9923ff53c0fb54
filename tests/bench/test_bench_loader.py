"""The benchmark of the loader: what it reports, and that its peers do the work they are said to do."""

import json
import shutil

import cv2
import numpy as np
import pytest

from slicfast.bench.dali_graphs import PeerGraphs
from slicfast.bench.loader import COLUMNS, STAGES, bench_loader, random_batches, table_rows
from slicfast.bench.texture import SIZE, texture_store
from slicfast.bench.texture_flow import add_flow
from slicfast.config import Config
from slicfast.data.reading import ClipReader
from slicfast.data.requests import View
from slicfast.data.store import ClipStore
from slicfast.data.stores.flow import FlowStore

pytest.importorskip("nvidia.dali")


def small() -> Config:
    return Config.from_dict({"data": {"clip_length": 4, "crop_size": 16}, "train": {"device": "cpu"}})


def test_every_stage_is_reported_in_plain_json(tiny_store):
    result = bench_loader(small(), store=tiny_store, batch_size=3, num_runs=2)
    assert json.loads(json.dumps(result)) == result
    assert result["stored"] == [40, 32] and result["clip"] == [4, 16, 16] and result["num_threads"] == 1
    names = [stage["what"] for stage in result["stages"]]
    assert names[0] == "pixels: decode" and set(STAGES) < set(names) and len(names) == len(STAGES) + 4
    for stage in result["stages"]:
        low, high = stage["cpu_ms_quartiles"]
        assert 0 < low <= stage["cpu_ms"] <= high
        assert stage["clips_per_second"] == pytest.approx(1e3 / stage["wall_ms"])
    rows = table_rows(result)
    assert {len(row) for row in rows} == {len(COLUMNS)}


def test_requests_have_the_views_of_a_training_step(tiny_store):
    config = small()
    views = np.concatenate([batch["view"] for batch in random_batches(config, tiny_store, 200)])
    assert views.mean() == pytest.approx(2 / 3 * config.motion.prob, abs=0.05)
    still = Config.load(None, ["motion.view=none"])
    assert not any(batch["view"].any() for batch in random_batches(still, tiny_store, 200))


def test_flow_is_loaded_in_the_share_of_a_training_step(gliding_store):
    config = Config.from_dict({**small().to_dict(), "motion": {"view": "flow"}})
    views = np.concatenate([batch["view"] for batch in random_batches(config, gliding_store, 200)])
    assert (views == View.FLOW).mean() == pytest.approx(2 / 3 * config.motion.prob, abs=0.05)
    result = bench_loader(config, store=gliding_store, batch_size=3, num_runs=1)
    assert result["motion_view"] == "flow" and len(result["stages"]) == len(STAGES) + 4


def test_flow_of_stored_pictures_is_that_of_the_film(gliding_store, tmp_path):
    shutil.copytree(gliding_store.path, tmp_path / "store")
    shutil.rmtree(tmp_path / "store/flow-uv")
    store = ClipStore(tmp_path / "store")
    add_flow(store, "both")
    fields, flow = [], [FlowStore(store, "both"), FlowStore(gliding_store, "both")]
    assert all(each.has(np.arange(len(store))).all() for each in flow)
    for each in flow:
        (jpeg,) = each.fields.frames(0, [5])
        fields.append(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[8:-8, 8:-8].astype(float))
    assert np.abs(fields[0] - fields[1]).mean() < 2 and np.abs(fields[0] - 128).mean() > 10


def test_the_texture_store_looks_like_stored_video(tmp_path):
    store = texture_store(tmp_path / "store")
    assert set(store.width.tolist()) == {SIZE[0]} and set(store.height.tolist()) == {SIZE[1]}
    batches = random_batches(Config(), store, 2)
    reader = ClipReader(store, 16)
    pictures = [reader.read(batch).pictures for batch in batches]
    sizes = [len(jpeg) for batch in pictures for jpeg in batch]
    assert 3000 < np.mean(sizes) < 9000  # UCF101 at this size and quality: 5.6 kB
    graphs = PeerGraphs(Config(), store, batches, pictures, num_threads=1)
    for run in (graphs.resize(), graphs.naive()):
        run()
