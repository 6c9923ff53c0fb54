"""Flow at prepare time: sign and size of known motion, n - 1 fields, what later runs and kills leave."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_data import gliding_video, smooth_video, write_video

from slicfast.data.catalog import read_catalog
from slicfast.data.flow import FlowEncoder, flow_folder, levels_per_pixel
from slicfast.data.prepare import PrepareReport, StoreSettings, prepare
from slicfast.data.preparing.flow import outdated_flow, prepare_flow
from slicfast.data.store import ClipStore
from slicfast.data.stores.writer import StoreWriter
from slicfast.errors import ConfigError, DataError, RunError

SMALL = StoreSettings(short_side=48)
FLOW = StoreSettings(content="flow-u")
STEP = (3.0, -1.5)  # pixels of the file, to the right and up
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 128 x 96 pixels and 6-11 pictures, gliding; and one of a single picture. Read-only."""
    root = tmp_path_factory.mktemp("gliding")
    generator = np.random.default_rng(0)
    for number in range(6):
        video_THWC = gliding_video(generator, 6 + number, 128, 96, STEP)
        write_video(root / f"{number}.mkv", video_THWC, codec="ffv1")
    write_video(root / "still.mkv", video_THWC[:1], codec="ffv1")
    return root


@pytest.fixture(scope="module")
def prepared(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their store with flow of both kinds; read-only."""
    store = tmp_path_factory.mktemp("prepared") / "store"
    prepare(read_catalog(videos), store, SMALL, workers=1)
    prepare_flow(read_catalog(videos), store, workers=1)
    prepare_flow(read_catalog(videos), store, "both", workers=1)
    return store


def fields(store: Path, row: int) -> np.ndarray:
    """(T, H, W, 3) stored levels in the order red, green, blue."""
    opened = ClipStore(store)
    pictures = opened.frames(row, range(int(opened.num_frames[row])))
    return np.stack([cv2.imdecode(picture, cv2.IMREAD_COLOR)[..., ::-1] for picture in pictures])


def contents(store: Path) -> dict[str, list[bytes]]:
    opened = ClipStore(store)
    return {
        opened.id(row): [frame.tobytes() for frame in opened.frames(row, range(opened.num_frames[row]))]
        for row in range(len(opened))
    }


def test_known_motion_has_its_sign_and_size(prepared: Path) -> None:
    assert levels_per_pixel(64, 48) == pytest.approx(31.875)  # 6.375 at 240 rows
    u, v = (128 + 31.875 * step / 2 for step in STEP)  # the file is stored at half its size
    grey_THWC = fields(flow_folder(prepared, "horizontal"), 2)[:, 8:-8, 8:-8]
    assert grey_THWC.mean() == pytest.approx(u, abs=2) and grey_THWC.std() < 4
    colour_THWC = fields(flow_folder(prepared, "both"), 2)[:, 8:-8, 8:-8]
    np.testing.assert_allclose(colour_THWC.mean((0, 1, 2)), [u, v, 128], atol=2)


def test_the_same_motion_has_the_same_level_at_any_size() -> None:
    generator = np.random.default_rng(1)
    means = []
    for size in (1, 2):
        video_THWC = gliding_video(generator, 2, 96 * size, 64 * size, (1.5 * size, 0.0))
        encoder = FlowEncoder(FLOW)
        assert encoder.encode(video_THWC[0]) == b""
        jpeg = encoder.encode(video_THWC[1])
        means.append(cv2.imdecode(np.frombuffer(jpeg, np.uint8), 0)[8:-8, 8:-8].mean())
    np.testing.assert_allclose(means, 128 + 1.5 * 6.375 * 240 / 64, atol=2)


@pytest.mark.parametrize("size", [(1, 1), (8, 200), (200, 3), (15, 15)])
def test_pictures_too_small_for_dis_have_finite_flow(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(2)
    before, after = generator.integers(0, 256, (2, *size), dtype=np.uint8)
    field = FlowEncoder(FLOW).field(before, after)
    assert field.shape == (*size, 2) and np.isfinite(field).all()


def test_n_pictures_have_n_minus_1_fields_and_one_has_none(prepared: Path) -> None:
    store = ClipStore(prepared)
    for components in ("horizontal", "both"):
        flow = ClipStore(flow_folder(prepared, components))
        assert flow.ids() == [name for name in store.ids() if name != "still.mkv"]
        for row, name in enumerate(flow.ids()):
            pictures = store.row(name)
            assert flow.num_frames[row] == store.num_frames[pictures] - 1
            assert (flow.width[row], flow.height[row]) == (store.width[pictures], store.height[pictures])


def test_repeated_pictures_do_not_move(videos: Path, tmp_path: Path) -> None:
    settings = StoreSettings(short_side=48, fps=50.0)  # every picture twice
    prepare(read_catalog(videos), tmp_path / "store", settings, workers=1, limit=1)
    report = prepare_flow(read_catalog(videos), tmp_path / "store", workers=1, limit=1)
    pictures, flow = ClipStore(tmp_path / "store"), ClipStore(tmp_path / "store/flow-u")
    assert (report.num_done, int(flow.num_frames[0])) == (1, int(pictures.num_frames[0]) - 1)
    level_T = fields(flow.path, 0)[:, 8:-8, 8:-8].mean((1, 2, 3))
    np.testing.assert_allclose(level_T[::2], 128, atol=0.5)
    np.testing.assert_allclose(level_T[1::2], 128 + 31.875 * 1.5, atol=2)


def test_flow_is_jpeg_whatever_the_pictures_are(videos: Path, tmp_path: Path) -> None:
    settings = StoreSettings(short_side=48, codec="vp9", crf=40)
    prepare(read_catalog(videos), tmp_path / "store", settings, workers=1, limit=1)
    for expected in (1, 0):  # the second run finds the settings it would choose itself
        assert prepare_flow(read_catalog(videos), tmp_path / "store", workers=1, limit=1).num_done == expected
    assert ClipStore(tmp_path / "store/flow-u").settings.codec == "jpeg"


def test_flow_comes_later_without_touching_the_pictures_and_survives_them(
    videos: Path, tmp_path: Path
) -> None:
    def both(**options: object) -> tuple[PrepareReport, PrepareReport]:
        catalog = read_catalog(videos)
        pictures = prepare(catalog, tmp_path / "store", SMALL, workers=1, **options)  # type: ignore[arg-type]
        return pictures, prepare_flow(catalog, tmp_path / "store", workers=1, **options)  # type: ignore[arg-type]

    pictures, flow = both(limit=3)
    assert (pictures.num_done, flow.num_done, flow.num_left_out) == (3, 3, 0)
    before = contents(tmp_path / "store/flow-u")
    pictures, flow = both()
    assert (pictures.num_done, pictures.num_already, flow.num_done, flow.num_already) == (4, 3, 3, 3)
    pictures, flow = both()
    assert (pictures.num_done, flow.num_done, flow.num_kept) == (0, 0, 6)
    after = contents(tmp_path / "store/flow-u")
    assert len(after) == 6 and all(after[name] == jpegs for name, jpegs in before.items())


def test_flow_of_changed_files_is_told_and_made_anew(videos: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(videos, tmp_path / "videos"))
    for _ in range(2):  # the second time one file is another
        pictures = prepare(read_catalog(root), tmp_path / "store", SMALL, workers=1)
        outdated = outdated_flow(tmp_path / "store", pictures.changed)
        flow = prepare_flow(read_catalog(root), tmp_path / "store", workers=1)
        shutil.copy(root / "5.mkv", root / "0.mkv")
    assert outdated == [tmp_path / "store/flow-u"] and flow.changed == ("0.mkv",)
    made = contents(tmp_path / "store/flow-u")
    assert made["0.mkv"] == made["5.mkv"]
    assert outdated_flow(tmp_path / "store", ["still.mkv"]) == outdated_flow(tmp_path, ["0.mkv"]) == []


def test_a_killed_run_goes_on_where_it_was(videos: Path, prepared: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    prepare(read_catalog(videos), store, SMALL, workers=1)
    code = (
        "import sys, time; from slicfast.data.catalog import read_catalog;"
        "from slicfast.data.preparing.flow import prepare_flow;"
        "prepare_flow(read_catalog(sys.argv[1]), sys.argv[2], workers=1,"
        " progress=lambda done, *_: done == 2 and (print('two', flush=True), time.sleep(60)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(videos), str(store)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline() == b"two\n"
    with pytest.raises(RunError, match="another process is preparing"):
        prepare_flow(read_catalog(videos), store, workers=1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(0.1)
    with pytest.raises(DataError, match="not finished"):
        ClipStore(store / "flow-u")
    report = prepare_flow(read_catalog(videos), store, workers=1)
    assert (report.num_done, report.num_already) == (4, 2)
    assert contents(store / "flow-u") == contents(prepared / "flow-u")


def test_a_store_of_still_pictures_or_none_is_told(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(DataError, match="no clip store"):
        prepare_flow(read_catalog(videos), tmp_path / "store", workers=1)
    write_video(tmp_path / "still/a.mkv", smooth_video(np.random.default_rng(0), 1, 64, 48), codec="ffv1")
    prepare(read_catalog(tmp_path / "still"), tmp_path / "store", SMALL, workers=1)
    with pytest.raises(DataError, match="two pictures or more"):
        prepare_flow(read_catalog(tmp_path / "still"), tmp_path / "store", workers=1)


def test_flow_is_not_mistaken_for_pictures(prepared: Path) -> None:
    with pytest.raises(ConfigError, match="made with flow-u, short side 48"):
        StoreWriter(prepared / "flow-u", SMALL)
