"""One remote video into a file: in pieces, going on where a connection broke."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from slicfast.data.preparing.remote import FetchError, OutputFull, Remote, file_system, persistently

PIECE_BYTES = 1 << 20


def fetch(video: Remote, target: Path, size: int = 0, beat: Callable[[], None] = lambda: None) -> None:
    """Copy a remote video, or a member of a shard, to `target`.

    Args:
        size: bytes that are expected; 0: not known.
        beat: called for each piece, to show that the work goes on.

    Raises:
        FetchError: it cannot be had, or not whole.
        OutputFull: `target` cannot be written.
        MachineError: the protocol's package is missing.
    """
    system, path = file_system(video.url)
    wanted = size if video.size is None else video.size
    try:
        out = target.open("wb")
    except OSError as error:
        raise OutputFull(error) from None
    with out:
        copy = _Copy(system, path, video, wanted, out, beat)
        persistently(copy.go_on, beat)


class _Copy:
    """A copy under way; `go_on` may be called until it raises nothing."""

    def __init__(
        self, system: Any, path: str, video: Remote, size: int, out: IO[bytes], beat: Callable[[], None]
    ) -> None:
        self._system, self._path, self._video = system, path, video
        self._size, self._out, self._beat = size, out, beat
        self._done = 0
        self._is_web = video.url.startswith(("http://", "https://"))
        self._in_ranges = True  # until a server turns out not to give ranges

    def go_on(self) -> None:
        video = self._video
        # From a web server a whole file comes in one answer, and in ranges once that has broken.
        streams = self._is_web and video.size is None and not (self._done and self._in_ranges)
        if streams:
            self._start_over()
        try:
            self._copy(block_size=0) if streams else self._copy(cache_type="none")
        except ValueError:
            if not self._is_web:
                raise
            if video.size is not None:
                raise FetchError("its server gives no parts of files; download the shard", False) from None
            self._in_ranges = False
            raise OSError("its server cannot go on with a broken transfer") from None
        if self._size and self._done < self._size:
            reason = f"ends after {self._done} of {self._size} bytes"
            raise FetchError(reason, False) if video.is_local else OSError(reason)

    def _start_over(self) -> None:
        self._done = 0
        self._write(lambda: (self._out.seek(0), self._out.truncate()))

    def _copy(self, **options: Any) -> None:
        with self._system.open(self._path, "rb", **options) as source:
            if self._video.start + self._done:
                source.seek(self._video.start + self._done)
            while True:
                left = PIECE_BYTES if self._video.size is None else self._video.size - self._done
                piece = source.read(min(PIECE_BYTES, left)) if left else b""
                if not piece:
                    return
                self._write(lambda data=piece: self._out.write(data))  # type: ignore[misc]
                self._done += len(piece)
                self._beat()

    def _write(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            raise OutputFull(error) from None
