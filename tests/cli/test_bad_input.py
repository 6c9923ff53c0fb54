"""What a user can get wrong: one line of what is wrong and what to do, its exit code, nothing left behind."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import encode_pictures, record_of, smooth_video

from slicfast.config import Config
from slicfast.data.store import ClipStore, StoreSettings
from slicfast.data.stores.writer import StoreWriter

SMALL = (
    "data.clip_length=4",
    "data.crop_size=16",
    "data.num_threads=1",
    "model.name=slic_r3d_10",
    "model.width=0.125",
    "model.projection_hidden=16",
    "model.projection_dim=8",
    "train.epochs=1",
    "train.batch_size=4",
    "train.precision=fp32",
    "train.device=cpu",
)


class Place:
    """A folder with whatever a case needs in it."""

    def __init__(self, path: Path, store: ClipStore) -> None:
        self.path = path
        self.good_store = store.path

    def file(self, name: str, content: str | bytes = "") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def config(self, *overrides: str, store: Path | None = None) -> Path:
        values = (*SMALL, f"data.store={store or self.good_store}", *overrides)
        return self.file("small.yaml", Config.load(None, values).to_yaml())

    def copy_of_store(self) -> Path:
        return Path(shutil.copytree(self.good_store, self.path / "store"))

    def store_of(self, *lengths: int) -> Path:
        path, generator = self.path / "store", np.random.default_rng(0)
        ids = [f"video_{number}.avi" for number in range(len(lengths))]
        with StoreWriter(path, StoreSettings(short_side=32)) as writer:
            for video_id, length in zip(ids, lengths, strict=True):
                pictures = encode_pictures(smooth_video(generator, length, 40, 32))
                writer.add(record_of(video_id, None, pictures, 40, 32), b"".join(pictures))
            writer.finish(dict.fromkeys(ids), {"train": ids})
        return path

    def checkpoint_of_another_model(self) -> Path:
        from slicfast.engine.checkpoint import Checkpoint, save_checkpoint
        from slicfast.engine.encoder import build_encoder

        config = Config.load(None, [*SMALL, "model.width=0.25"])
        path = self.path / "other.pt"
        save_checkpoint(path, Checkpoint(config.to_dict(), build_encoder(config.model).state_dict()))
        return path

    def contents(self) -> dict[str, int]:
        return {
            str(path.relative_to(self.path)): path.stat().st_mtime_ns
            for path in self.path.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def place(tmp_path: Path, tiny_store: ClipStore, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Place(folder, tiny_store)


def older_version(place: Place) -> Path:
    store = place.copy_of_store()
    header = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps(header | {"version": 99}))
    return store


def broken_header(place: Place) -> Path:
    store = place.copy_of_store()
    (store / "store.json").write_text('{"format": "slic')
    return store


def never_finished(place: Place) -> Path:
    store = place.path / "store"
    pictures = encode_pictures(smooth_video(np.random.default_rng(0), 20, 40, 32))
    with StoreWriter(store, StoreSettings(short_side=32)) as writer:
        writer.add(record_of("a.avi", None, pictures, 40, 32), b"".join(pictures))
    return store


PREPARE = {
    "missing folder": (lambda place: ["none", "store"], 1, "found nothing"),
    "empty folder": (lambda place: [place.file("videos/.keep").parent, "store"], 1, "videos"),
    "no videos": (lambda place: [place.file("videos/notes.txt", "x").parent, "store"], 1, "videos"),
    "unknown kind": (lambda place: [place.path, "store", "--kind", "foldr"], 2, "did you mean 'folder'?"),
    "missing lists": (lambda place: [place.path, "store", "--lists", "none"], 1, "no list file"),
    "list of nothing": (
        lambda place: [place.file("list.txt", "a.mp4\nb.mp4\n"), "store"],
        1,
        "none of the 2",
    ),
}

TRAIN = {
    "missing config": (lambda place: ["none.yaml"], 2, "no configuration file at none.yaml"),
    "unreadable config": (lambda place: [place.file("c.yaml", "optim: [")], 2, "not valid YAML at line"),
    "unknown key": (lambda place: [place.file("c.yaml", "optim: {lrr: 1}")], 2, "the nearest is 'optim.lr'"),
    "unknown override": (
        lambda place: [place.config(), "--set", "optim.lrr=1"],
        2,
        "the nearest is 'optim.lr'",
    ),
    "impossible value": (
        lambda place: [place.config(), "--set", "optim.lr=-1"],
        2,
        "optim.lr: input should be",
    ),
    "no override": (lambda place: [place.config(), "--set", "optim.lr"], 2, "section.key=value"),
    "unknown model": (lambda place: [place.config("model.name=slic_r3d_19")], 2, "slic_r3d_1"),
    "unknown optimizer": (lambda place: [place.config("optim.name=sdg")], 2, "sdg"),
    "unknown split": (lambda place: [place.config("data.train_split=trian")], 2, "did you mean 'train'?"),
    "batch above videos": (
        lambda place: [place.config("train.batch_size=64")],
        2,
        "set train.batch_size to 8",
    ),
    "missing store": (lambda place: [place.config(store=Path("none"))], 1, "slicfast prepare"),
    "empty store": (
        lambda place: [place.config(store=place.file("store/.keep").parent)],
        1,
        "slicfast prepare",
    ),
    "store of another version": (lambda place: [place.config(store=older_version(place))], 1, "version"),
    "broken store header": (lambda place: [place.config(store=broken_header(place))], 1, "store.json"),
    "unfinished store": (lambda place: [place.config(store=never_finished(place))], 1, "slicfast prepare"),
    "one video": (lambda place: [place.config(store=place.store_of(40))], 1, "video"),
    "all too short": (lambda place: [place.config(store=place.store_of(3, 5, 7))], 1, "the longest has 7"),
    "missing checkpoint": (
        lambda place: [place.config(), "--resume", "none.pt"],
        1,
        "no checkpoint at none.pt",
    ),
    "no checkpoint": (
        lambda place: [place.config(), "--resume", place.file("x.pt", "x")],
        1,
        "not a readable",
    ),
    "checkpoint of another model": (
        lambda place: [place.config(f"train.init_from={place.checkpoint_of_another_model()}")],
        1,
        "another model",
    ),
    "run folder in use": (
        lambda place: [place.config(), "--run", place.file("runs/a/metrics.jsonl").parent],
        1,
        "--resume auto",
    ),
}

EVAL = {
    "missing run": (lambda place: ["none"], 1, "no run or checkpoint at none"),
    "empty run": (lambda place: [place.file("runs/a/metrics.jsonl").parent], 1, "holds no checkpoint"),
    "no checkpoint": (lambda place: [place.file("x.pt", "x")], 1, "not a readable"),
    "unknown override": (lambda place: ["none", "--set", "evl.num_clips=3"], 2, "the nearest is 'eval'"),
}

CASES = [
    pytest.param((*command.split(), *()), arguments, code, part, id=f"{command}: {name}")
    for command, cases in {"prepare": PREPARE, "train": TRAIN, "eval retrieval": EVAL}.items()
    for name, (arguments, code, part) in cases.items()
]


@pytest.mark.parametrize(("command", "arguments", "code", "part"), CASES)
def test_bad_input_is_one_line(
    command: tuple[str, ...],
    arguments: Callable[[Place], list[object]],
    code: int,
    part: str,
    place: Place,
    slicfast: Callable,
) -> None:
    made = arguments(place)
    before = place.contents()
    finished = slicfast(*command, *made)
    errors = [line for line in finished.err.splitlines() if line.startswith("slicfast: ")]
    assert len(errors) == 1, finished.err
    assert "Traceback" not in finished.err
    assert finished.code == code
    assert part in errors[0]
    assert finished.err.endswith(errors[0] + "\n")
    assert place.contents() == before


def test_nothing_readable_leaves_only_the_reasons(place: Place, slicfast: Callable) -> None:
    videos = place.file("videos/a.mp4", b"junk" * 99).parent
    finished = slicfast("prepare", videos, "store")
    assert finished.code == 1
    assert "none of the 1 videos can be used; 'a.mp4': " in finished.err.splitlines()[-1]
    assert "a.mp4" in (place.path / "store/left_out.tsv").read_text()
    assert slicfast("train", place.config(store=Path("store"))).code == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpu_asked_for_where_there_is_none(place: Place, slicfast: Callable) -> None:
    finished = slicfast("train", place.config(), "--set", "train.device=cuda")
    assert finished.code == 1
    assert "use train.device=cpu" in finished.error_line
    assert not (place.path / "runs").exists()


def test_dali_not_installed(place: Place, slicfast: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    finished = slicfast("train", place.config())
    assert finished.code == 1
    assert finished.error_line.startswith(
        "slicfast: error: NVIDIA DALI is not installed; run 'pip install nvidia-dali-"
    )
    assert not (place.path / "runs").exists()


def run_with_little_space(*arguments: object, num_bytes: int) -> subprocess.CompletedProcess[str]:
    """The real command where no file may grow beyond num_bytes, which is what a full disk looks like."""
    return subprocess.run(
        [sys.executable, "-m", "slicfast", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes)),
    )


def test_no_space_for_a_checkpoint(place: Place) -> None:
    finished = run_with_little_space("train", place.config(), "--run", "runs/a", num_bytes=8192)
    assert finished.returncode == 1
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("slicfast: error: no space left to write")
    assert "Traceback" not in finished.stderr
    assert [path.name for path in (place.path / "runs/a").rglob("*") if path.suffix in (".pt", ".tmp")] == []
