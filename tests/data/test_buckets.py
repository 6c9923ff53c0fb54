"""Prepare from buckets: s3:// and gs://, each against a server of its protocol on loopback.

Needs `pip install 'slicfast[s3,gcs,bucket-tests]'`.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import fsspec
import numpy as np
import pytest
from loopback import serving
from small_data import smooth_video, write_video
from test_sources import SMALL, check_shards, contents, files_of, run, write_shards

from slicfast.data.catalog import read_catalog
from slicfast.data.preparing import remote
from slicfast.data.preparing.estimate import estimate
from slicfast.data.store import ClipStore
from slicfast.errors import DataError

NEEDS = "needs {}: pip install 'slicfast[{},bucket-tests]'"


@dataclass
class Bucket:
    """A bucket on loopback: where it is, how to put an object there, and how many bodies were asked for."""

    url: str
    put: Callable[[str, bytes], None]


def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    pytest.importorskip("s3fs", reason=NEEDS.format("s3fs", "s3"))
    moto = pytest.importorskip("moto.server", reason=NEEDS.format("moto's server", "s3"))
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    settings = {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": url,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="films")
    yield Bucket("s3://films", lambda name, data: client.put_object(Bucket="films", Key=name, Body=data))
    client.close()
    server.stop()


def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    # Else it asks Google, by gRPC, what kind of bucket this is.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs", reason=NEEDS.format("gcsfs", "gcs"))
    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason=NEEDS.format("gcp-storage-emulator", "gcs")
    )
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="films")
    server.start()
    url = f"http://127.0.0.1:{server._api._httpd.server_address[1]}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")  # for the workers, which read it when they start
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})

    def put(name: str, data: bytes) -> None:
        address = f"{url}/upload/storage/v1/b/films/o?uploadType=media&name={quote(name, safe='')}"
        request = urllib.request.Request(address, data, {"Content-Type": "video/avi"}, method="POST")
        urllib.request.urlopen(request).close()

    yield Bucket("gs://films", put)
    server.stop()


@pytest.fixture(params=[s3, gs], ids=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.05)
    forget_listings()
    yield from request.param(monkeypatch)


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


def forget_listings() -> None:
    """As a new command would: file systems remember what they listed."""
    for protocol in ("s3", "gs"):
        system = fsspec.registry.get(protocol)  # None: not used yet
        if system is not None:
            system.clear_instance_cache()


def test_a_folder_in_a_bucket_becomes_the_same_store(
    bucket: Bucket, videos: Path, expected: dict[str, object], tmp_path: Path
) -> None:
    for name, data in files_of(videos).items():
        bucket.put(name, data)
    root = f"{bucket.url}/videos"
    told = estimate(read_catalog(root), settings=SMALL, workers=1)
    assert (told.num_videos, told.num_sampled, told.unreadable) == (4, 4, {})
    report = run(root, tmp_path / "store", keep_original=True)
    assert (report.num_kept, report.num_originals) == (4, 4)
    assert contents(tmp_path / "store") == expected
    store = ClipStore(tmp_path / "store")
    for row in range(len(store)):
        assert store.original(row).data.tobytes() == (videos / store.id(row)).read_bytes()
    forget_listings()
    assert run(root, tmp_path / "store").num_done == 0
    changed = write_video(tmp_path / "new.avi", smooth_video(np.random.default_rng(9), 5, 64, 48))
    bucket.put("videos/walk/2.avi", changed.read_bytes())
    forget_listings()
    assert run(root, tmp_path / "store").changed == ("walk/2.avi",)


def test_shards_and_lists_in_a_bucket(
    bucket: Bucket, videos: Path, expected: dict[str, object], tmp_path: Path
) -> None:
    for path in write_shards(tmp_path / "shards", videos):
        bucket.put(f"shards/{path.name}", path.read_bytes())
    run(f"{bucket.url}/shards/{{train-000,val-001}}.tar", tmp_path / "store")
    check_shards(tmp_path / "store", expected)
    assert run(f"{bucket.url}/shards", tmp_path / "store").num_done == 0
    for name, data in files_of(videos).items():
        bucket.put(name, data)
    bucket.put("videos/train.txt", b'walk/0.avi w\n"long jump/1.avi" j 0 0.2\n')
    run(f"{bucket.url}/videos/train.txt", tmp_path / "listed")
    assert ClipStore(tmp_path / "listed").num_frames.tolist() == [5, 8]


def test_what_is_not_there_is_said_in_a_line(bucket: Bucket) -> None:
    for root in ("films-of-others/videos", "films/nothing"):
        url = f"{bucket.url.partition('://')[0]}://{root}"
        with pytest.raises(DataError, match=f"cannot list {url}: no such file") as caught:
            read_catalog(url)
        assert "\n" not in str(caught.value)


def test_missing_credentials_are_said_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for bucket in s3(monkeypatch):
        forget_listings()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "none"))
        with pytest.raises(
            DataError, match=r"no credentials: .*AWS_ACCESS_KEY_ID.*FSSPEC_S3_ANON=true"
        ) as told:
            read_catalog(f"{bucket.url}/videos")
        assert "\n" not in str(told.value)


def test_an_anonymous_caller_of_a_private_bucket_is_told_how_to_be_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs", reason=NEEDS.format("gcsfs", "gcs"))
    with serving() as server:
        server.answers["storage/v1/b/films/o"] = [401] * 20
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        forget_listings()
        with pytest.raises(DataError, match=r"GOOGLE_APPLICATION_CREDENTIALS") as told:
            read_catalog("gs://films/videos")
        assert "\n" not in str(told.value)
