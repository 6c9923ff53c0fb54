"""A features file: the vectors of videos, or of windows of them, with what made them; .npz or .parquet.

features.npz       features (N, D) float32, video (N,) int32 into ids, start_s and end_s (N,) float64,
                   ids (V,), duration_s, fps, num_frames, source_size, source_mtime_ns (V,), left_out_ids,
                   left_out_reasons, meta (JSON text); uncompressed, so that it is read in blocks
features.parquet   a row a vector: id, start_s, end_s, duration_s, fps, num_frames, features (list of D);
                   meta and what was left out as JSON under the schema's key "slicfast"
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from slicfast.errors import ConfigError, DataError, MachineError
from slicfast.records import write_atomically

FORMAT = "slicfast-features"
VERSION = 1
SUFFIXES = (".npz", ".parquet")
BLOCK_ROWS = 16384
VIDEO_COLUMNS = ("duration_s", "fps", "num_frames", "source_size", "source_mtime_ns")

Float32 = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class FeatureTable:
    """Everything of a features file but the vectors.

    Attributes:
        meta: format, version, checkpoint, fingerprint and settings; plain values.
        ids: V videos.
        video_N: which of them a row belongs to.
        start_s_N, end_s_N: the seconds it covers.
        videos: VIDEO_COLUMNS by name, (V,) each.
        left_out: id -> reason.
    """

    meta: dict[str, Any]
    ids: list[str]
    video_N: npt.NDArray[np.int32]
    start_s_N: npt.NDArray[np.float64]
    end_s_N: npt.NDArray[np.float64]
    videos: dict[str, AnyArray]
    left_out: dict[str, str]


def require_writable_kind(path: Path) -> None:
    """Raise ConfigError for a suffix no features file has, MachineError where pyarrow is missing."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"features are written as {' or '.join(SUFFIXES)}; got '{path.name}'")
    if path.suffix == ".parquet":
        _parquet()


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MachineError("parquet needs pyarrow; run pip install 'slicfast[parquet]'") from None
    return pyarrow.parquet


def write_features(path: Path, table: FeatureTable, dim: int, rows: Callable[[int, int], Float32]) -> None:
    """Write a features file whole or not at all, a block of vectors in memory at a time.

    Args:
        dim: D.
        rows: (first, last) -> the vectors of these rows, (last - first, D) float32.
    """
    num_rows = len(table.video_N)
    ends = [*range(BLOCK_ROWS, num_rows, BLOCK_ROWS), num_rows]
    blocks = zip([0, *ends[:-1]], ends, strict=True)
    if path.suffix == ".parquet":
        write_atomically(path, lambda stream: _write_parquet(stream, table, dim, rows, blocks))
    else:
        write_atomically(path, lambda stream: _write_npz(stream, table, dim, rows, blocks))


def _write_npz(
    stream: IO[bytes],
    table: FeatureTable,
    dim: int,
    rows: Callable[[int, int], Float32],
    blocks: Iterator[tuple[int, int]],
) -> None:
    small: Mapping[str, Any] = {
        "video": table.video_N,
        "start_s": table.start_s_N,
        "end_s": table.end_s_N,
        "ids": np.array(table.ids, dtype=np.str_),
        **table.videos,
        "left_out_ids": np.array(list(table.left_out), dtype=np.str_),
        "left_out_reasons": np.array(list(table.left_out.values()), dtype=np.str_),
        "meta": np.array(json.dumps(table.meta)),
    }
    with zipfile.ZipFile(stream, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            shape = (len(table.video_N), dim)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for first, last in blocks:
                member.write(np.ascontiguousarray(rows(first, last), dtype="<f4").data)
        for name, values in small.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)


def _write_parquet(
    stream: IO[bytes],
    table: FeatureTable,
    dim: int,
    rows: Callable[[int, int], Float32],
    blocks: Iterator[tuple[int, int]],
) -> None:
    parquet = _parquet()
    import pyarrow as pa

    ids = np.array(table.ids, dtype=object)
    note = json.dumps({**table.meta, "left_out": table.left_out})
    fields = [("id", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())]
    fields += [(name, pa.from_numpy_dtype(column.dtype)) for name, column in table.videos.items()]
    schema = pa.schema([*fields, ("features", pa.list_(pa.float32(), dim))], metadata={"slicfast": note})
    with parquet.ParquetWriter(stream, schema, use_dictionary=["id"]) as writer:
        for first, last in blocks:
            video = table.video_N[first:last]
            flat = pa.array(np.ascontiguousarray(rows(first, last), dtype=np.float32).reshape(-1))
            columns = [ids[video], table.start_s_N[first:last], table.end_s_N[first:last]]
            columns += [column[video] for column in table.videos.values()]
            arrays = [pa.array(values, type=schema.field(n).type) for n, values in enumerate(columns)]
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, dim))
            writer.write_batch(pa.record_batch(arrays, schema=schema))


class FeaturesFile:
    """A features file opened for reading; vectors stay on disk until asked for.

    Attributes:
        table: everything else.
        num_rows, dim: N and D.

    Raises:
        DataError: missing, damaged or foreign.
    """

    table: FeatureTable
    num_rows: int
    dim: int

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"no features file at {self.path}; `slicfast embed ... -o` makes one")
        read = self._read_parquet if self.path.suffix == ".parquet" else self._read_npz
        try:
            read()
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, struct.error) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"{self.path} is not a features file of `slicfast embed` ({reason})") from None

    def _read_npz(self) -> None:
        if not zipfile.is_zipfile(self.path):
            raise ValueError("not an .npz file")
        with self.path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            self.table = FeatureTable(
                meta=_checked(json.loads(str(found["meta"])), self.path),
                ids=found["ids"].tolist(),
                video_N=found["video"],
                start_s_N=found["start_s"],
                end_s_N=found["end_s"],
                videos={name: found[name] for name in VIDEO_COLUMNS},
                left_out=dict(zip(found["left_out_ids"], found["left_out_reasons"], strict=True)),
            )
        with zipfile.ZipFile(self.path) as archive:
            member = archive.getinfo("features.npy")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its features are compressed; keep them as they were written")
            with archive.open(member) as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                header_bytes = stream.tell()
        if dtype != np.dtype("<f4") or len(shape) != 2 or shape[0] != len(self.table.video_N):
            raise ValueError(f"features of {shape} {dtype} for {len(self.table.video_N)} rows")
        with self.path.open("rb") as file:  # the local header has a length of its own
            file.seek(member.header_offset + 26)
            name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
        self._offset = member.header_offset + 30 + name_bytes + extra_bytes + header_bytes
        self.num_rows, self.dim = shape

    def _read_parquet(self) -> None:
        file = _parquet().ParquetFile(self.path)
        note = json.loads(file.schema_arrow.metadata[b"slicfast"])
        left_out = note.pop("left_out")
        names = ["id", "start_s", "end_s", *VIDEO_COLUMNS]
        found = file.read(columns=names)
        coded = found["id"].combine_chunks().dictionary_encode()
        video_N = coded.indices.to_numpy().astype(np.int32)
        _, first = np.unique(video_N, return_index=True)
        self.table = FeatureTable(
            meta=_checked(note, self.path),
            ids=coded.dictionary.to_pylist(),
            video_N=video_N,
            start_s_N=found["start_s"].to_numpy(),
            end_s_N=found["end_s"].to_numpy(),
            videos={name: found[name].to_numpy()[first] for name in VIDEO_COLUMNS},
            left_out=left_out,
        )
        self.num_rows = len(video_N)
        self.dim = file.schema_arrow.field("features").type.list_size

    def blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[int, Float32]]:
        """Yield (first row, (B, D) float32) over all rows. Raises DataError where the file ends early."""
        if self.path.suffix == ".parquet":
            yield from self._parquet_blocks(block_rows)
            return
        with self.path.open("rb") as file:
            file.seek(self._offset, os.SEEK_SET)
            for first in range(0, self.num_rows, block_rows):
                num = min(block_rows, self.num_rows - first)
                block = np.fromfile(file, dtype="<f4", count=num * self.dim)
                if len(block) != num * self.dim:
                    raise DataError(f"{self.path} ends before its features do; make it again")
                yield first, block.reshape(num, self.dim)

    def _parquet_blocks(self, block_rows: int) -> Iterator[tuple[int, Float32]]:
        first = 0
        for batch in _parquet().ParquetFile(self.path).iter_batches(block_rows, columns=["features"]):
            block: Float32 = batch.column(0).flatten().to_numpy().reshape(-1, self.dim)
            yield first, block
            first += len(block)


def _checked(meta: Any, path: Path) -> dict[str, Any]:
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError("another format")
    if meta["version"] != VERSION:
        raise DataError(
            f"{path} is a features file of version {meta['version']}, this slicfast reads {VERSION};"
            " make it again"
        )
    return meta
