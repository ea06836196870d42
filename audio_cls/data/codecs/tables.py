"""Parquet files and Arrow streams (as `datasets.save_to_disk` writes them), row by row, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audio_cls.core.errors import UserError
from audio_cls.data.audio import BadAudio

__all__ = ["TABLE_SUFFIXES", "ArrowFile", "ParquetTable", "open_table", "table_columns", "table_rows"]

TABLE_SUFFIXES = frozenset({".parquet", ".arrow"})
_BATCH = 16  # rows of a Parquet file decoded at a time: audio makes them large


class ParquetTable:
    """One column of a Parquet file. Rows that are asked for in ascending order are read in one pass."""

    def __init__(self, path: Path, column: str) -> None:
        import pyarrow.parquet as pq

        self.column = column
        self._file = pq.ParquetFile(path, pre_buffer=False, memory_map=True, page_checksum_verification=True)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.n_rows = int(self._starts[-1])
        self.names: list[str] = self._file.schema_arrow.names
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._first, self._batch = 0, None

    def row(self, number: int) -> Any:
        """Return the column's value in a row, from 0, as Python has it."""
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        if group != self._group or number < self._first:
            self._group, self._first, self._batch = group, int(self._starts[group]), None
            self._batches = self._file.iter_batches(_BATCH, row_groups=[group], columns=[self.column])
        while self._batch is None or number >= self._first + len(self._batch):
            self._first += 0 if self._batch is None else len(self._batch)
            self._batch = next(self._batches)
        return self._batch.column(0)[number - self._first].as_py()

    def close(self) -> None:
        self._file.close()


class ArrowFile:
    """One column of an Arrow stream, mapped into memory."""

    def __init__(self, path: Path, column: str) -> None:
        import pyarrow as pa

        self._source = pa.memory_map(str(path))
        with pa.ipc.open_stream(self._source) as stream:
            self.names: list[str] = stream.schema.names
            self._batches = list(stream)
        self._starts = np.cumsum([0] + [len(batch) for batch in self._batches])
        self.column, self.n_rows = column, int(self._starts[-1])

    def row(self, number: int) -> Any:
        """Return the column's value in a row, from 0, as Python has it."""
        k = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._batches[k].column(self.names.index(self.column))[number - int(self._starts[k])].as_py()

    def close(self) -> None:
        self._batches.clear()
        self._source.close()


def open_table(path: Path, column: str) -> ParquetTable | ArrowFile:
    """Open a Parquet file or Arrow stream, by its ending, to read one column.

    Raises:
        BadAudio: for a file that is none, or has no such column.
    """
    import pyarrow as pa

    try:
        table: ParquetTable | ArrowFile = (ArrowFile if path.suffix == ".arrow" else ParquetTable)(path, column)
    except (pa.ArrowException, OSError) as error:
        raise BadAudio(f"cannot be read as {path.suffix.lstrip('.')}: {_first_line(error)}") from None
    if column not in table.names:
        table.close()
        raise BadAudio(f"has no column {column!r}; its columns: {', '.join(table.names)}")
    return table


def table_rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield some columns of each row of a Parquet file or Arrow stream; the others (the audio) are not decoded.

    Raises:
        UserError: for a file that is none, or lacks one of the columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".arrow":
            with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
                _need(path, columns, stream.schema.names)
                for batch in stream:
                    yield from batch.select(columns).to_pylist()
            return
        with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            _need(path, columns, file.schema_arrow.names)
            for batch in file.iter_batches(4096, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix.lstrip('.')}: {_first_line(error)}") from None


def _need(path: Path, columns: list[str], names: list[str]) -> None:
    missing = [name for name in columns if name.partition(".")[0] not in names]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]!r}; its columns: {', '.join(names)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def table_columns(path: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the names of a table's columns, and what it declares of them as a data set of Hugging Face ({} if nothing).

    Raises:
        UserError: for a file that is no table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".arrow":
            with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
                schema = stream.schema
        else:
            schema = pq.read_schema(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix.lstrip('.')}: {_first_line(error)}") from None
    try:
        declared = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
    except (ValueError, AttributeError):
        declared = {}
    return schema.names, declared if isinstance(declared, dict) else {}
