"""Which original files a run of prepare keeps beside their videos, and what became of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from slicfast.data.catalog import Video
from slicfast.data.preparing.source import is_unchanged
from slicfast.data.preparing.workers import Result
from slicfast.data.stores.format import Source
from slicfast.data.stores.original import segment_of
from slicfast.data.stores.writer import StoreWriter
from slicfast.errors import DataError

logger = logging.getLogger("slicfast")


@dataclass
class Keeper:
    """Asks for each file once, however many segments of it are stored.

    Attributes:
        num_kept, bytes: files copied by this run.
        not_kept: why a stored video's file was not, by video id.
    """

    writer: StoreWriter
    num_kept: int = 0
    bytes: int = 0
    not_kept: dict[str, str] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)

    def wants(self, video: Video, now: Source) -> bool:
        """Whether a video's file is still to be copied; `now` is what it is at present."""
        name = self._file_id(video)
        kept = self.writer.original(name)
        if name in self._asked or (kept is not None and is_unchanged(video.path, now, kept)):
            return False
        self._asked.add(name)
        return True

    def take(self, result: Result) -> None:
        """Copy the file of a result that was asked for. Raises MachineError where there is no room."""
        task = result.task
        is_segment = task.start_s is not None
        if result.record is None and not (task.only_original or is_segment):
            return  # nothing came out of it: its own reason is told already
        reason = result.facts_reason or result.reason
        if result.facts is not None and isinstance(task.path, Path):  # a fetched one is a file by now
            file_id = segment_of(task.id)[0] if is_segment else task.id
            try:
                self.writer.add_original(file_id, task.path, result.source, result.facts)
            except DataError as error:
                reason = str(error)
            else:
                self.num_kept += 1
                self.bytes += result.source.size
                return
        self.not_kept[task.id] = reason
        logger.warning("the original of %s is not kept: %s", task.id, reason)

    @staticmethod
    def _file_id(video: Video) -> str:
        return video.id if video.start_s is None else segment_of(video.id)[0]
