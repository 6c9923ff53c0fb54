"""Prepare from elsewhere: fsspec's file systems, servers that misbehave, WebDataset shards."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from loopback import Loopback, serving
from small_data import smooth_video, write_video

from slicfast.data.catalog import read_catalog
from slicfast.data.catalogs.shards import expand
from slicfast.data.prepare import PrepareReport, StoreSettings, estimate, prepare
from slicfast.data.preparing import remote
from slicfast.data.preparing.fetch import PIECE_BYTES, fetch
from slicfast.data.preparing.left_out import read_left_out
from slicfast.data.preparing.remote import Remote
from slicfast.data.store import ClipStore
from slicfast.errors import ConfigError, DataError, MachineError

SMALL = StoreSettings(short_side=24)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small videos in two classes; read-only."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(4):
        video_THWC = smooth_video(np.random.default_rng(number), 8 + number, 64, 48)
        write_video(root / ("walk", "long jump")[number % 2] / f"{number}.avi", video_THWC)
    return root


@pytest.fixture(scope="module")
def expected(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    store = tmp_path_factory.mktemp("expected") / "store"
    run(str(videos), store)
    return contents(store)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.05)  # in this process; workers wait as they always do
    with serving() as server:
        yield server


def files_of(videos: Path, folder: str = "videos") -> dict[str, bytes]:
    return {
        f"{folder}/{path.relative_to(videos).as_posix()}": path.read_bytes()
        for path in sorted(videos.rglob("*.avi"))
    }


def run(root: str, store: Path, **options: object) -> PrepareReport:
    catalog = read_catalog(root)
    return prepare(catalog, store, SMALL, **{"workers": 1, **options})  # type: ignore[arg-type]


def contents(store: Path) -> dict[str, object]:
    """Label, split and pictures of every stored video."""
    opened = ClipStore(store)
    names = (*opened.label_names, None)
    found: dict[str, object] = {}
    for row in range(len(opened)):
        splits = [name for name in opened.splits if row in opened.split(name)]
        frames = [frame.tobytes() for frame in opened.frames(row, range(int(opened.num_frames[row])))]
        found[opened.id(row)] = names[opened.label_ids[row]], splits, frames
    return found


@pytest.fixture
def memory(videos: Path) -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for path, content in files_of(videos).items():
        system.pipe_file(f"/{path}", content)
    yield "memory://videos"
    system.store.clear()
    system.pseudo_dirs.clear()


def test_a_folder_in_memory_becomes_the_same_store(
    memory: str, expected: dict[str, object], tmp_path: Path
) -> None:
    catalog = read_catalog(memory)
    assert catalog.kind == "folder" and catalog.labels == ("long jump", "walk")
    assert run(memory, tmp_path / "store").num_kept == 4
    assert contents(tmp_path / "store") == expected
    assert run(memory, tmp_path / "store").num_done == 0
    fsspec.filesystem("memory").pipe_file("/videos/walk/0.avi", b"no video any more")
    report = run(memory, tmp_path / "store")
    assert report.changed == ("walk/0.avi",) and report.num_done == 1
    assert "FFmpeg cannot read it" in report.left_out["walk/0.avi"]
    assert not (tmp_path / "store/tmp").exists()


def test_a_folder_on_a_web_server(
    server: Loopback, videos: Path, expected: dict[str, object], tmp_path: Path
) -> None:
    server.files = files_of(videos)
    assert run(f"{server.url}/videos/", tmp_path / "store").num_kept == 4
    assert contents(tmp_path / "store") == expected
    assert set(server.bodies.values()) == {1}
    assert run(f"{server.url}/videos", tmp_path / "store").num_done == 0
    assert set(server.bodies.values()) == {1}, "a stored, unchanged video is not fetched again"
    changed = write_video(tmp_path / "new.avi", smooth_video(np.random.default_rng(9), 5, 64, 48))
    server.files["videos/walk/2.avi"] = changed.read_bytes()
    assert run(f"{server.url}/videos", tmp_path / "store").changed == ("walk/2.avi",)
    assert server.bodies["videos/walk/2.avi"] == 2 and sum(server.bodies.values()) == 5


def test_fetched_files_can_be_kept(server: Loopback, videos: Path, tmp_path: Path) -> None:
    server.files = files_of(videos)
    run(f"{server.url}/videos", tmp_path / "store", keep_original=True)
    store = ClipStore(tmp_path / "store")
    for row in range(len(store)):
        original = store.original(row)
        assert original.data.tobytes() == server.files[f"videos/{store.id(row)}"]
    run(f"{server.url}/videos", tmp_path / "store", keep_original=True)
    assert set(server.bodies.values()) == {1} and not (tmp_path / "store/tmp").exists()


def test_a_dry_run_fetches_a_few_videos_only(server: Loopback, videos: Path) -> None:
    one = next(iter(files_of(videos).values()))
    server.files = {f"videos/walk/{number:03d}.avi": one for number in range(40)}
    told = estimate(read_catalog(f"{server.url}/videos"), settings=SMALL)
    assert (told.num_videos, told.num_sampled, told.unreadable) == (40, 8, {})
    assert told.hours * 3600 == pytest.approx(40 * 9 / 25) and told.bytes > 0
    assert sum(server.bodies.values()) == 8


@pytest.mark.parametrize("gives_ranges", [True, False])
def test_broken_connections_are_taken_up_again(
    server: Loopback, videos: Path, expected: dict[str, object], tmp_path: Path, gives_ranges: bool
) -> None:
    server.files = files_of(videos)
    server.gives_ranges = gives_ranges
    server.drops.update({"videos/walk/0.avi": 2, "videos/walk/2.avi": 1})
    assert run(f"{server.url}/videos", tmp_path / "store").num_kept == 4
    assert contents(tmp_path / "store") == expected


def test_what_has_come_is_not_sent_again(server: Loopback, tmp_path: Path) -> None:
    film = np.random.default_rng(0).bytes(8_000_000)
    server.files = {"a.avi": film}
    server.drops["a.avi"] = 1
    fetch(Remote(f"{server.url}/a.avi", "a.avi"), tmp_path / "a.avi", len(film))
    assert (tmp_path / "a.avi").read_bytes() == film
    assert server.num_bytes < len(film) + 2 * PIECE_BYTES and server.bodies["a.avi"] > 2


def test_answers_of_a_server_that_cannot(
    server: Loopback,
    videos: Path,
    expected: dict[str, object],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.files = files_of(videos)
    listing = tmp_path / "list.txt"
    listing.write_text(
        "".join(f'"{server.url}/{path}" {path.split("/")[1].split()[0]}\n' for path in server.files)
        + f"{server.url}/videos/gone.avi walk\n"
    )
    first, second, third, fourth = server.files
    server.answers = {first: [500, 503], second: [403] * 9, third: [500] * 99, fourth: []}
    with caplog.at_level(logging.WARNING, "slicfast"):
        report = run(str(listing), tmp_path / "store", workers=3)
    assert {path.removeprefix(f"{server.url}/"): reason for path, reason in report.left_out.items()} == {
        second: "the server answers 403",
        third: "the server answers 500",
        "videos/gone.avi": "no such file",
    }
    assert len([line for line in caplog.messages if line.startswith("left out")]) == 3
    server.answers = {}
    report = run(str(listing), tmp_path / "store")  # what may be better another time is tried again
    assert report.num_done == 1 and set(report.left_out) == {
        f"{server.url}/{second}",
        f"{server.url}/videos/gone.avi",
    }
    assert run(str(listing), tmp_path / "store", retry=True).num_kept == 4
    pictures = sorted(str(value[2]) for value in expected.values())  # type: ignore[index]
    assert sorted(str(value[2]) for value in contents(tmp_path / "store").values()) == pictures  # type: ignore[index]


def test_a_slow_server_costs_its_videos_only(server: Loopback, videos: Path, tmp_path: Path) -> None:
    server.files = files_of(videos)
    server.pause_s = {"videos/walk/0.avi": 30.0}
    report = run(f"{server.url}/videos", tmp_path / "store", stall_s=60.0, limit_s=2.5)
    assert report.left_out == {"walk/0.avi": "not done after 2.5 s, the time limit of a video"}
    assert report.num_kept == 3 and not (tmp_path / "store/tmp").exists()


def test_a_list_elsewhere_names_videos_beside_it(server: Loopback, videos: Path, tmp_path: Path) -> None:
    server.files = files_of(videos)
    server.files["videos/train.txt"] = b'walk/0.avi w\r\n"long jump/1.avi" j 0 0.2\r\n'
    catalog = read_catalog(f"{server.url}/videos/train.txt")
    assert [video.id for video in catalog.videos] == ["long jump/1.avi#0-0.2", "walk/0.avi"]
    prepare(catalog, tmp_path / "store", SMALL, workers=1)
    stored = ClipStore(tmp_path / "store")
    assert stored.num_frames.tolist() == [5, 8] and stored.label_names == ("j", "w")


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("s3://bucket/videos", r"s3:// needs a package that is not installed: pip install s3fs"),
        ("gs://bucket/videos", r"gs:// needs a package that is not installed: pip install gcsfs"),
        ("nosuch://bucket/videos", r"'nosuch' is not a protocol"),
        ("memory://nothing-here", r"cannot list memory://nothing-here: no such file"),
        (
            "http://127.0.0.1:1/videos",
            r"cannot list http://127\.0\.0\.1:1/videos: cannot be fetched: .*[Cc]onnect",
        ),
        (
            "http://127.0.0.1:1/a.tar",
            r"cannot read the shard http://127\.0\.0\.1:1/a\.tar: cannot be fetched",
        ),
    ],
)
def test_what_cannot_be_reached_is_said_in_a_line(
    root: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)
    with pytest.raises((DataError, MachineError), match=message) as caught:
        read_catalog(root)
    assert "\n" not in str(caught.value)


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder: Path, videos: Path) -> list[Path]:
    """A shard a split, two videos each, their labels told in four ways."""
    film = [(videos / name).read_bytes() for name in ("walk/0.avi", "long jump/1.avi", "walk/2.avi")]
    film.append((videos / "long jump/3.avi").read_bytes())
    return [
        write_shard(
            folder / "train-000.tar",
            {
                "a.avi": film[0],
                "a.cls": b"7\n",
                "./deep/b.v1.AVI": film[1],
                "./deep/b.json": json.dumps({"label": "jump", "width": 64}).encode(),
            },
        ),
        write_shard(
            folder / "val-001.tar",
            {
                "run/c.txt": b"run fast",
                "run/c.avi": film[2],
                "swim/d.avi": film[3],
                "swim/d.txt": b"A swimmer,\nseen from above.",
                "notes.md": bytes(200_000),
                ".hidden.avi": b"x",
            },
        ),
    ]


EXPECTED_LABELS = {"a.avi": "7", "deep/b.v1.AVI": "jump", "run/c.avi": "run fast", "swim/d.avi": "swim"}


def check_shards(store: Path, expected: dict[str, object]) -> None:
    found = contents(store)
    assert {name: value[0] for name, value in found.items()} == EXPECTED_LABELS  # type: ignore[index]
    assert [value[1] for value in found.values()] == [["train"], ["train"], ["val"], ["val"]]  # type: ignore[index]
    pictures = [found[name][2] for name in EXPECTED_LABELS]  # type: ignore[index]
    names = ("walk/0.avi", "long jump/1.avi", "walk/2.avi", "long jump/3.avi")
    assert pictures == [expected[name][2] for name in names]  # type: ignore[index]


def test_shards_on_this_machine(videos: Path, expected: dict[str, object], tmp_path: Path) -> None:
    first, _ = write_shards(tmp_path / "shards", videos)
    pattern = str(tmp_path / "shards/{train-000,val-001}.tar")
    assert run(pattern, tmp_path / "store").num_kept == 4
    check_shards(tmp_path / "store", expected)
    for again in (pattern, str(tmp_path / "shards/*.tar"), str(tmp_path / "shards")):
        assert read_catalog(again).kind == "shards"
        assert run(again, tmp_path / "store").num_done == 0
    first.touch()  # a copied shard has another time and the same videos
    assert run(pattern, tmp_path / "store").num_done == 0
    content = first.read_bytes()
    film = (videos / "walk/0.avi").read_bytes()
    first.write_bytes(content.replace(film, film[:-9] + b"123456789"))
    assert run(pattern, tmp_path / "store").changed == ("a.avi",)


def test_shards_elsewhere_are_read_in_parts(
    server: Loopback, videos: Path, expected: dict[str, object], tmp_path: Path
) -> None:
    for path in write_shards(tmp_path / "shards", videos):
        server.files[f"shards/{path.name}"] = path.read_bytes()
    for pattern in (f"{server.url}/shards/{{train-000,val-001}}.tar", f"{server.url}/shards"):
        report = run(pattern, tmp_path / "store")
        assert report.num_kept == 4
        check_shards(tmp_path / "store", expected)
    assert report.num_done == 0
    server.gives_ranges = False
    with pytest.raises(DataError, match=r"its server gives no parts of files; download the shards"):
        read_catalog(f"{server.url}/shards")


def test_patterns() -> None:
    assert expand("a-{008..011}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]
    assert expand("{x,y}/{0..1}.tar") == ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]
    assert expand("s3://b/{}.tar") == ["s3://b/{}.tar"]
    with pytest.raises(DataError, match="runs backwards"):
        expand("{3..1}.tar")


def test_shards_that_cannot_be_used(videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    film = (videos / "walk/0.avi").read_bytes()
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.tar", {"x.avi": film})
    with pytest.raises(
        DataError, match=r"'x\.avi' is in .*a\.tar and in .*b\.tar; expected a key in one shard"
    ):
        read_catalog(str(tmp_path / "{a,b}.tar"))
    with pytest.raises(DataError, match=r"none\.tar: no such file"):
        read_catalog(str(tmp_path / "none.tar"))
    with pytest.raises(DataError, match="no tar shards match"):
        read_catalog(str(tmp_path / "none-*.tar"))
    (tmp_path / "x.tar.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"is compressed; expected a plain \.tar"):
        read_catalog(str(tmp_path / "x.tar.gz"))
    with pytest.raises(ConfigError, match="kind shards, without lists"):
        read_catalog(str(tmp_path / "a.tar"), "ucf101")
    write_shard(tmp_path / "text.tar", {"x.txt": b"x"})
    with pytest.raises(DataError, match="no videos in the 1 tar shards"):
        read_catalog(str(tmp_path / "text.tar"))
    cut = write_shard(tmp_path / "cut.tar", {"x.avi": film, "y.avi": film})
    cut.write_bytes(cut.read_bytes()[: 1024 + len(film) + 700])
    with caplog.at_level(logging.WARNING, "slicfast"):
        report = run(str(cut), tmp_path / "store")
    assert "cut.tar is damaged" in caplog.text and report.num_kept == 1
    assert report.left_out["y.avi"].startswith("ends after ")
    assert set(read_left_out(tmp_path / "store")) == {"y.avi"}
    broken = bytearray((tmp_path / "a.tar").read_bytes())
    broken[100:140] = bytes(40)
    (tmp_path / "a.tar").write_bytes(broken)
    with pytest.raises(DataError, match="no videos in the 1 tar shards"):
        read_catalog(str(tmp_path / "a.tar"))
