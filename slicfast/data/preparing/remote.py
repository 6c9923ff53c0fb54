"""Videos that have no file of their own on this machine: whatever fsspec opens, and members of tar shards."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from slicfast.data.stores.format import Source
from slicfast.errors import DataError, MachineError, SlicfastError

NUM_TRIES = 4
FIRST_WAIT_S = 0.5  # before the second try; twice as long before each further one
CONNECT_S = 30.0
SILENCE_S = 60.0  # without a byte, after which a connection is given up

_PACKAGES = {
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs"),
    **dict.fromkeys(("ssh", "sftp"), "paramiko"),
    "hf": "huggingface_hub",
}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")
_HOW_TO_BE_KNOWN = (
    "for s3:// set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE (a public bucket:"
    " FSSPEC_S3_ANON=true), for gs:// GOOGLE_APPLICATION_CREDENTIALS (FSSPEC_GS_TOKEN=anon)"
)
_IN_PROCESS = ("memory",)  # what other processes do not see

# What tells whether a file is the one it was: its contents where a file system knows them, else its time.
_CONTENT_KEYS = ("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "checksum", "blob_id", "sha256")
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified", "created")

T = TypeVar("T")


class FetchError(DataError):
    """A remote file that cannot be had; `for_now` where another time may be better."""

    def __init__(self, reason: str, for_now: bool = True) -> None:
        super().__init__(reason)
        self.for_now = for_now


class OutputFull(Exception):
    """A file here could not be written; nobody else is at fault."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Remote:
    """A video elsewhere.

    Attributes:
        url: of its file, or of the tar shard that it is a member of; a local shard's is its absolute path.
        name: file name, for its extension.
        start: first byte within a shard.
        size: bytes within a shard; None: the whole file.
        source: what a listing told about it; None where it must be asked for.
    """

    url: str
    name: str
    start: int = 0
    size: int | None = None
    source: Source | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a member of a shard on this machine."""
        return not is_url(self.url)

    @property
    def is_in_process(self) -> bool:
        """Whether other processes cannot see it."""
        return self.url.partition("://")[0] in _IN_PROCESS


@dataclass(frozen=True)
class RemoteFolder:
    """A folder that fsspec lists, used as a path is: `folder / id` is the video of that id.

    Attributes:
        url: without a slash at the end.
        sources: what a listing told about its files, by id.
    """

    url: str
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, video_id: str) -> Remote:
        quoted = quote(video_id) if self.url.startswith(("http://", "https://")) else video_id
        url = f"{self.url}/{quoted}"
        return Remote(url, PurePosixPath(video_id).name, source=self.sources.get(video_id))


Root = Path | RemoteFolder


def is_url(location: str | Path) -> bool:
    """Whether a location is for fsspec; file:// is not, being a path."""
    return "://" in str(location) and not str(location).startswith("file://")


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path within it.

    Raises:
        MachineError: the protocol's package is missing; the message has pip's line.
        DataError: no such protocol, or one that cannot be set up (credentials, a bad address).
    """
    import fsspec

    protocol = url.partition("://")[0] if is_url(url) else "file"
    options: dict[str, Any] = {}
    try:
        if protocol in ("http", "https"):
            import aiohttp

            # aiohttp's own limit, five minutes for a whole file, is too short for films.
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
            options = {"client_kwargs": {"timeout": limits}}
        system, path = fsspec.core.url_to_fs(url, **options)
    except ImportError:
        package = _PACKAGES.get(protocol, "")
        line = f"pip install {package}" if package else "see fsspec's list of known implementations"
        raise MachineError(f"{protocol}:// needs a package that is not installed: {line}") from None
    except ValueError:
        raise DataError(
            f"{url}: '{protocol}' is not a protocol that fsspec knows; expected a path or one of s3://, gs://,"
            " https:// and others"
        ) from None
    except Exception as error:  # credentials and the like: every package has errors of its own
        raise DataError(f"{url}: cannot be opened: {explain(error)}") from None
    return system, str(path)


def persistently(ask: Callable[[], T], beat: Callable[[], None] = lambda: None) -> T:
    """What `ask` returns, tried again where the network may have been at fault. Raises FetchError."""
    for number in range(NUM_TRIES):
        try:
            return ask()
        except (SlicfastError, OutputFull, MemoryError):
            raise
        except Exception as error:  # every package has errors of its own
            failure = failure_of(error)
            if not failure.for_now or number == NUM_TRIES - 1:
                raise failure from None
        until = time.monotonic() + FIRST_WAIT_S * 2**number
        while time.monotonic() < until:
            beat()
            time.sleep(0.1)
    raise AssertionError("unreachable")


def failure_of(error: Exception) -> FetchError:
    """A package's error as ours: what it says in a line, and whether to try again."""
    cause = error.__cause__  # fsspec says "not found" for whatever a web server answers
    if any(type(one).__name__ in _NO_CREDENTIALS for one in (error, cause)):
        return FetchError(f"no credentials: {_HOW_TO_BE_KNOWN}", for_now=False)
    status = _status(cause) or _status(error)
    if status is not None:
        if status in (404, 410):
            return FetchError("no such file", for_now=False)
        if status in (401, 403) and type(error).__module__.startswith("gcsfs"):
            return FetchError(f"the server answers {status}; {_HOW_TO_BE_KNOWN}", for_now=False)
        permanent = 400 <= status < 500 and status not in (408, 425, 429)
        return FetchError(f"the server answers {status}", for_now=not permanent)
    if isinstance(error, FileNotFoundError) and cause is None:
        return FetchError("no such file", for_now=False)
    if isinstance(error, PermissionError):
        return FetchError(f"not permitted: {explain(error)}", for_now=False)
    return FetchError(f"cannot be fetched: {explain(cause if isinstance(cause, Exception) else error)}")


def _status(error: BaseException | None) -> int | None:
    """What a server answered, as aiohttp, gcsfs or botocore tell it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif type(error).__module__.startswith("gcsfs"):  # aiohttp's broken transfers bear a 400 of no account
        found = getattr(error, "code", None)
    else:
        found = getattr(error, "status", None)
    return found if isinstance(found, int) else None


def explain(error: Exception) -> str:
    """An error of any package in a line."""
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__


def told(info: Mapping[str, Any]) -> Source:
    """What a file system's entry says about a file: its size (0: it does not tell) and a stamp.

    The stamp takes the place of the time: it changes with the contents, as far as anybody can tell.
    """
    keys = [key for key in _CONTENT_KEYS if info.get(key)] or [key for key in _TIME_KEYS if info.get(key)]
    stamp = 0
    if keys:
        text = repr([(key, str(info[key])) for key in keys[:1]])
        stamp = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
    return Source(size=int(info.get("size") or 0), mtime_ns=stamp)


def stat_remote(video: Remote) -> Source:
    """Size and stamp of a remote video. Raises DataError with a reason where it cannot be had."""
    if video.size == 0:
        raise DataError("empty file")
    if video.source is not None:
        return video.source
    system, path = file_system(video.url)
    info = persistently(lambda: system.info(path))
    if info.get("type") == "directory":
        raise DataError("not a regular file")
    if info.get("size") == 0:
        raise DataError("empty file")
    return told(info)


def read_whole(url: str) -> bytes:
    """A small remote file. Raises DataError naming it."""
    system, path = file_system(url)
    try:
        content: bytes = persistently(lambda: system.cat_file(path))
    except FetchError as error:
        raise DataError(f"{url}: {error}") from None
    return content


def local_path(location: str | Path) -> Path:
    """The absolute path that a location means; links in it stay."""
    text = str(location).removeprefix("file://")
    return Path(os.path.abspath(Path(text).expanduser()))
