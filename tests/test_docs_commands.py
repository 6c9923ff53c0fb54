"""Every slicfast command that README.md and docs/ show is run, in a folder that has what they speak of.

What cannot be run here stands in NOT_RUN with its reason, and is parsed by test_docs.py like all others.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from test_docs import shown_commands

from slicfast.cli import run
from slicfast.config import Config

ROOT = Path(__file__).parent.parent

NOT_RUN = {
    "slicfast doctor --deep": "has tests of its own, at a smaller size",
    "slicfast doctor --deep --config configs/ucf101_r3d18.yaml --set train.batch_size=64": "as before",
    "slicfast bench step configs/ucf101_r3d18.yaml --device cuda": "needs a GPU",
    "slicfast train configs/ucf101_r3d18.yaml --set flow.source=hardware --run runs/hardware-flow": "a GPU",
    "slicfast bench step configs/demo.yaml --samples 4 --device cpu": "as doctor --deep",
    "slicfast doctor": "has tests of its own, and takes longer than all these",
    "slicfast train configs/demo.yaml --set logging.wandb_project=slicfast --run runs/demo": "an account",
    "slicfast synth data/demo": "draws hundreds of videos; the folder here holds a smaller set",
}
# What a command would make must not be there before it; `train` has its run folder to itself.
MADE = {
    "slicfast prepare data/demo data/demo-store": ("data/demo-store",),
    "slicfast prepare data/demo data/demo-scan --codec files": ("data/demo-scan",),
    "slicfast prepare path/to/UCF-101 data/ucf101 --lists path/to/ucfTrainTestlist --flow": ("data/ucf101",),
    "slicfast prepare path/to/videos data/mine": ("data/mine",),
}
SMALL = (
    "data.clip_length=4",
    "data.clip_stride=1",
    "data.crop_size=16",
    "data.num_threads=1",
    "model.width=0.125",
    "model.projection_hidden=16",
    "model.projection_dim=8",
    "cluster.start_epoch=2",
    "eval.num_clips=1",
    "eval.interval=20",
    "train.epochs=31",
    "train.batch_size=4",
    "train.precision=fp32",
    "train.device=cpu",
)
# UCF101's recipe at a size that trains in a second.
SMALL_UCF101 = (*SMALL, "train.epochs=1", "eval.query_split=null", "probe.epochs=2", "probe.batch_size=2")


def call(*arguments: object) -> None:
    assert run([str(argument) for argument in arguments]) == 0, arguments


def twenty_seconds(path: Path) -> None:
    """A film of five pictures a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 48, 32
        pictures = np.random.default_rng(0).integers(0, 255, (100, 32, 48, 3), dtype=np.uint8)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def official_ucf101(videos: list[Path], root: Path, lists: Path) -> None:
    """Two classes in UCF101's layout and spelling, of three groups each, with its lists of three splits."""
    names: dict[int, list[str]] = {1: [], 2: []}
    for place, video in enumerate(videos[:12]):
        label, group = place % 2 + 1, place // 2
        action = ("Archery", "Basketball")[label - 1]
        name = f"{action}/v_{action}_g{group + 1:02}_c01.avi"
        (root / action).mkdir(parents=True, exist_ok=True)
        shutil.copy(video, root / name)
        names[label].append(name)
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 Archery\n2 Basketball\n")
    for split in range(3):
        test = [name for group in names.values() for name in group[split::3]]
        train = [f"{name} {label}" for label in names for name in names[label] if name not in test]
        (lists / f"testlist{split + 1:02}.txt").write_text("".join(f"{name}\n" for name in test))
        (lists / f"trainlist{split + 1:02}.txt").write_text("".join(f"{line}\n" for line in train))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the videos, stores, runs and indices that the documentation speaks of, all small."""
    folder = tmp_path_factory.mktemp("docs") / "world"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("RANK", raising=False)
        groups = [f"--{split}-groups=1" for split in ("train", "val", "test")]
        call("synth", "data/demo", "--actions", "walk,wave", *groups, "--num-frames", 20, "--workers", 1)
        call("prepare", "data/demo", "data/demo-store", "--workers", 1)
        call("prepare", "data/demo", "data/demo-scan", "--codec", "files", "--workers", 1)
        videos = sorted(Path("data/demo").rglob("*.mp4"))
        halves = {"a": videos[::2], "b": videos[1::2]}
        for name, half in halves.items():
            Path(f"{name}.txt").write_text("".join(f"{video.resolve()}\n" for video in half))
            call("prepare", f"{name}.txt", f"data/{name}", "--workers", 1)
        shutil.copytree("data/demo-store", "data/mine")
        official_ucf101(videos, Path("path/to/UCF-101"), Path("path/to/ucfTrainTestlist"))
        lists = "--lists=path/to/ucfTrainTestlist"
        call("prepare", "path/to/UCF-101", "data/ucf101", lists, "--flow", "--workers", 1)
        Path("configs").mkdir()
        config = Config.load(ROOT / "configs" / "demo.yaml", SMALL)
        Path("configs/demo.yaml").write_text(config.to_yaml())
        call("train", "configs/demo.yaml", "--run", "runs/demo")
        config = Config.load(ROOT / "configs" / "ucf101_r3d18.yaml", SMALL_UCF101)
        Path("configs/ucf101_r3d18.yaml").write_text(config.to_yaml())
        call("train", "configs/ucf101_r3d18.yaml", "--run", "runs/ucf101")
        call("convert", "runs/ucf101", "slic.pth.tar", "--to", "slic")
        call("convert", "runs/ucf101", "r3d50_K_200ep.pth", "--to", "3d-resnets")
        for name in ("first", "second", "mine"):
            shutil.copytree("runs/demo", f"runs/{name}")
        for place in ("path/to/videos", "path/to/long/videos", "videos"):
            shutil.copytree("data/demo/walk" if Path("data/demo/walk").is_dir() else "data/demo", place)
        Path("more").mkdir()
        for name in ("query.mp4", "a.mp4", "long.mkv", "more/one.mp4"):
            shutil.copy(videos[0], name)
        twenty_seconds(Path("match.mkv"))
        shutil.copy(videos[1], "b.mp4")
        Path("list.txt").write_text("a.mp4\n")
        for name in ("features.npz", "index.npz"):
            call("embed", "runs/demo", "a.mp4", "b.mp4", "-o", name)
    return folder


@pytest.mark.parametrize("line", [line for line in shown_commands() if line not in NOT_RUN])
def test_a_command_shown_does_its_work(
    line: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    shutil.copytree(world, here)
    made_now = [*MADE.get(line, ())]
    if line.startswith("slicfast train") and "--resume" not in line:
        made_now += re.findall(r"--run (\S+)", line)
    for path in made_now:
        shutil.rmtree(here / path, ignore_errors=True)
    for made in ("features.npz", "index.npz"):
        if f"-o {made}" in line:
            (here / made).unlink()
    monkeypatch.chdir(here)
    monkeypatch.delenv("RANK", raising=False)
    if "to onnx" in line:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    if "tensorboard" in line:
        pytest.importorskip("tensorboard")
    arguments = shlex.split(line)[1:]
    if "more/*.mp4" in arguments:  # a shell would have done it
        arguments[arguments.index("more/*.mp4")] = "more/one.mp4"
    code = run(arguments)
    assert code == 0, capfd.readouterr().err


def test_what_is_not_run_is_shown_somewhere() -> None:
    shown = set(shown_commands())
    assert set(NOT_RUN) <= shown
    assert set(MADE) <= shown


@pytest.fixture(autouse=True)
def quiet_logging() -> Iterator[None]:
    """Commands set up logging for the process; it is put back."""
    logger = logging.getLogger("slicfast")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
