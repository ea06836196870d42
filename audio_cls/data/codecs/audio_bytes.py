"""Audio files that lie as bytes in a column of a Parquet file or Arrow stream, as Hugging Face's data sets hold them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from audio_cls.core.payload import Payload, waveform_payload
from audio_cls.data.audio import BadAudio, audio_facts, decode, file_size, header_rate
from audio_cls.data.codecs.base import Codec, Part, Reader, Rows
from audio_cls.data.codecs.tables import ArrowFile, ParquetTable, open_table

__all__ = ["AudioBytes"]

_LOOKED_AT = 32  # headers a file that are read to choose a rate


class AudioBytes(Codec, kind="audio_bytes"):
    """One clip a row: the bytes of an audio file, in a column of bytes or of {bytes, path}. Its position is the row, from 0."""

    column: str = "audio"
    """The column that holds the audio."""

    reads_audio = True

    def payload(self, sample_rate: int | None) -> Payload:
        return waveform_payload(sample_rate or 16000)

    def open(self, path: Path) -> Reader:
        file_size(path)
        return _Reader(open_table(path, self.column))

    def source_rates(self, path: Path, positions: list[int | None]) -> list[int | None]:
        """Return the rates of the first rows that are asked for, and None for the others."""
        try:
            reader = _Reader(open_table(path, self.column))
        except BadAudio:
            return [None] * len(positions)
        rates: list[int | None] = []
        try:
            for position in positions[:_LOOKED_AT]:
                try:
                    rates.append(header_rate(io.BytesIO(reader.audio(position))))
                except BadAudio:
                    rates.append(None)
        finally:
            reader.close()
        return rates + [None] * (len(positions) - len(rates))


class _Reader:
    def __init__(self, table: ParquetTable | ArrowFile) -> None:
        self.table = table

    def close(self) -> None:
        self.table.close()

    def audio(self, position: int | None) -> bytes:
        number = position or 0
        if number >= self.table.n_rows:
            raise BadAudio(f"row {number}: the file ends at row {self.table.n_rows - 1}")
        value: Any = self.table.row(number)
        value = value.get("bytes") if isinstance(value, dict) else value
        if value is None:
            raise BadAudio(f"row {number}: its audio is missing (null)")
        if not isinstance(value, bytes) or not value:
            raise BadAudio(f"row {number}: its audio is {'empty' if value == b'' else type(value).__name__}, no bytes")
        return value

    def read(self, part: Part) -> Rows:
        data = self.audio(part.position)
        try:
            audio = decode(
                io.BytesIO(data),
                len(data),
                sample_rate=part.sample_rate or 16000,
                start=part.start,
                end=part.end,
                max_seconds=part.max_seconds,
                min_seconds=part.min_seconds,
                trim_db=part.trim_db,
            )
        except BadAudio as error:
            raise BadAudio(f"row {part.position}: {error}") from None
        return Rows(audio.samples, audio_facts(audio))
