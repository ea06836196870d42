"""What the rows of a corpus are: samples of a waveform, vectors of a sequence, columns of a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DOMAINS", "DTYPES", "QUANTISED_PCA", "Payload", "waveform_payload"]

DOMAINS = ("waveform", "sequence", "image")
DTYPES = {"int16": "i16", "uint8": "u8", "uint16": "u16", "float32": "f32"}
"""The types of stored values, with the ending of the file that holds them."""
QUANTISED_PCA = "quantised PCA"
_MOST_VALUES = 1 << 20  # of one row


@dataclass(frozen=True)
class Payload:
    """What one row of a corpus holds, and how stored values become numbers: value = scale * stored + offset.

    Attributes:
        domain: "waveform", "sequence" or "image".
        dtype: of the stored values, a key of `DTYPES`; little endian on disk.
        row: shape of a row: () for a sample, (128,) for a vector, (channels, height) for a column of pixels.
        rate: rows a second.
        values: what the values are, where that decides what may be done with them: "quantised PCA" or "".
    """

    domain: str = "waveform"
    dtype: str = "int16"
    row: tuple[int, ...] = ()
    rate: float = 16000
    scale: float = 1 / 32768
    offset: float = 0.0
    values: str = ""

    @property
    def is_waveform(self) -> bool:
        return self.domain == "waveform"

    @property
    def storage(self) -> np.dtype[Any]:
        """The type of the values on disk."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def row_values(self) -> int:
        return math.prod(self.row)

    @property
    def row_bytes(self) -> int:
        return self.storage.itemsize * self.row_values

    @property
    def suffix(self) -> str:
        """The ending of a file of rows, without the dot."""
        return DTYPES[self.dtype]

    def to_float(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return stored values as float32 numbers of the same shape."""
        values = stored.astype(np.float32) * np.float32(self.scale)
        return values if self.offset == 0 else values + np.float32(self.offset)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "row": list(self.row)}

    def describe(self) -> str:
        """Return the payload in a few words: `sequence, uint8 (128,) at 1 rows/s`."""
        shape = "" if self.is_waveform else f" {self.row}"
        unit = "Hz" if self.is_waveform else "rows/s"
        return f"{self.domain}, {self.values + ', ' if self.values else ''}{self.dtype}{shape} at {self.rate:g} {unit}"

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Payload:
        """Read a payload from JSON.

        Raises:
            ValueError: for anything that no payload can be.
        """
        payload = cls(**{**data, "row": tuple(data["row"])})
        numbers = (payload.rate, payload.scale, payload.offset)
        whole = all(type(n) is int and n >= 1 for n in payload.row) and payload.row_values <= _MOST_VALUES
        plain = all(type(n) in (int, float) and math.isfinite(n) for n in numbers) and payload.rate > 0 != payload.scale
        if payload.domain not in DOMAINS or payload.dtype not in DTYPES or not isinstance(payload.values, str):
            raise ValueError(f"a payload of {payload.domain!r}, {payload.dtype!r}")
        if not whole or not plain or len(payload.row) != DOMAINS.index(payload.domain):
            raise ValueError(f"a payload of rows {payload.row} with rate, scale and offset {numbers}")
        return payload


def waveform_payload(sample_rate: int) -> Payload:
    """Return the payload of int16 samples, mono."""
    return Payload(rate=sample_rate)
