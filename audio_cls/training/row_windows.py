"""Windows of rows that are no waveforms, gathered from the corpus as they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audio_cls.components.row_features import BEGIN, END, PADDING, REAL, RowExtractor
from audio_cls.data.corpus import Corpus
from audio_cls.data.windows import position

__all__ = ["PackedRows", "window_places"]

_BLOCK_VALUES = 1 << 20  # of rows that statistics are taken of at a time


def window_places(
    lengths: np.ndarray, where: np.ndarray, frames: int, margin: int, pad: str
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Return what stands at each frame of a window: the clip's row, and REAL, PADDING, BEGIN or END; both (batch, frames).

    Args:
        lengths: rows of each clip, (batch,).
        where: of the window in a longer clip, 0 the first place, 1 the last, (batch,).
        margin: frames of markers before the first and after the last row; they count as the clip's.
        pad: of a shorter clip: "zero" on both sides, "end", or "tile".
    """
    extended = lengths + 2 * margin
    missing = np.maximum(frames - extended, 0)
    start = position(where, np.maximum(extended - frames, 0))
    left = missing // 2 if pad == "zero" else np.zeros_like(missing)
    at = np.arange(frames)[None] + (start - left)[:, None]  # among the rows and markers of the clip
    if pad == "tile":
        at = at % extended[:, None]
    row = at - margin
    inside = (at >= 0) & (at < extended[:, None])
    place = np.where(row < 0, BEGIN, np.where(row >= lengths[:, None], END, REAL))
    place = np.where(inside, place, PADDING).astype(np.int8)
    return np.clip(row, 0, lengths[:, None] - 1), place


@dataclass
class PackedRows:
    """The rows of a corpus as stored, (total, *row): mapped from its file on a CPU, else on the device.

    offsets, lengths: (n_clips,) int64, each clip's rows.
    """

    values: NDArray[Any] | torch.Tensor
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, corpus: Corpus, device: torch.device) -> PackedRows:
        values: Any = corpus.samples
        if device.type != "cpu":
            stored = (
                values.astype(np.int32) if values.dtype == np.uint16 else np.array(values)
            )  # torch indexes no uint16
            values = torch.from_numpy(stored).to(device)
        return cls(values, corpus.offsets, corpus.lengths)

    def gather(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return rows by number, (*rows.shape, *row)."""
        if isinstance(self.values, torch.Tensor):
            return self.values[torch.from_numpy(rows).to(self.values.device)]
        found = np.asarray(self.values[rows])
        return torch.from_numpy(found.astype(np.int32) if found.dtype == np.uint16 else found)

    def windows(
        self, clips: np.ndarray, where: np.ndarray, frames: int, margin: int, pad: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return rows (batch, frames, *row) as stored, and what stands at each frame, (batch, frames) int8."""
        rows, place = window_places(self.lengths[clips], where, frames, margin, pad)
        return self.gather(rows + self.offsets[clips][:, None]), torch.from_numpy(place)

    def blocks(self, clips: np.ndarray, extractor: RowExtractor) -> Iterator[torch.Tensor]:
        """Yield what statistics are taken of, of some clips: (m, n_bins) float32 on the CPU, some megabytes at a time."""
        for part in self._parts(clips):
            rows = np.concatenate([np.arange(self.offsets[i], self.offsets[i] + self.lengths[i]) for i in part])
            yield extractor.statistics_rows(self.gather(rows)).cpu()

    def count_blocks(self, clips: np.ndarray) -> int:
        """Return the number of blocks that `blocks` yields."""
        return len(self._parts(clips))

    def _parts(self, clips: np.ndarray) -> list[np.ndarray]:
        size = int(np.prod(self.values.shape[1:]))
        number = np.cumsum(self.lengths[clips] * size) // _BLOCK_VALUES
        return [part for part in np.split(clips, np.flatnonzero(np.diff(number)) + 1) if len(part)]
