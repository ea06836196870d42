"""Rows along time (frames of features, or samples) of audio that arrives in blocks, in bounded memory.

Rows are those that features of the whole recording would have: a block is computed with the samples around it that its frames depend
on (`FeatureExtractor.reach`), and only the ends of the recording are padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audio_cls.training.batches import fit_length

__all__ = ["RowStream", "cut_windows"]

CHUNK_SECONDS = 10.0  # of rows that are computed at once
WHOLE_SECONDS = 600.0  # up to which features that depend on the whole recording are computed at once


class RowStream:
    """Rows of a recording, taken in ascending order.

    Args:
        blocks: (n,) float32 samples each, of any length.
        extract: samples (1, n) -> (1, ..., rows), rows at the last axis.
        count: the number of rows of n samples.
        hop_length: samples from one row to the next.
        reach: samples on each side of a row's centre that it depends on (1 for samples themselves); None if all samples matter.
        window_samples: a shorter recording is padded to this length, by the rule `pad` of the experiment.
    """

    def __init__(
        self,
        blocks: Iterable[NDArray[np.float32]],
        extract: Callable[[Tensor], Tensor],
        count: Callable[[int], int],
        hop_length: int,
        reach: int | None,
        window_samples: int,
        pad: str,
        sample_rate: int,
    ) -> None:
        self._blocks = iter(blocks)
        self._extract, self.count, self._hop, self._reach = extract, count, hop_length, reach
        self._window, self._pad = window_samples, pad
        self._chunk = max(1, round(CHUNK_SECONDS * sample_rate / hop_length))  # rows
        self._most = round(WHOLE_SECONDS * sample_rate)
        self._margin = 0 if reach is None else hop_length * (-(-reach // hop_length) + 1)
        self._samples: NDArray[np.float32] = np.zeros(0, np.float32)
        self._first = 0  # the sample that `_samples` begins with
        self._rows: Tensor | None = None
        self._low = self._high = 0  # the rows that `_rows` holds
        self._ended = False
        self.n_samples = 0
        """Samples read so far."""

    @property
    def total_rows(self) -> int:
        """Rows of the whole recording, padded to one window at least. Known once `take` has returned None."""
        return self.count(max(self.n_samples, self._window))

    def finish(self) -> None:
        """Read the rest of the recording, keeping none of it."""
        for block in self._blocks:
            self.n_samples += len(block)
        self._ended = True

    def has(self, stop: int) -> bool:
        """Return whether the rows before `stop` can be taken without waiting for another block."""
        if self._reach is None:
            return self._ended or (stop - 1) * self._hop <= self._first + len(self._samples)
        return self._ended or stop <= max(self._high, self._available())

    def drop(self, start: int) -> None:
        """Let go of the rows before `start`."""
        if start >= self._high:
            self._rows, self._low, self._high = None, start, start
        elif start > self._low:
            assert self._rows is not None
            self._rows, self._low = self._rows[..., start - self._low :], start

    def take(self, start: int, stop: int) -> Tensor | None:
        """Return the rows [start, stop) as (1, ..., rows), or None where the recording ends before. `start` must not have been dropped."""
        if self._reach is None and not self._read_whole():
            return self._alone(start, stop)
        while self._high < stop:
            if not self._compute(stop):
                return None
        assert self._rows is not None
        return self._rows[..., start - self._low : stop - self._low]

    def _available(self) -> int:
        """Return the number of rows, counted from the recording's start, that the samples read so far determine."""
        if self._ended:
            return self.total_rows
        if self._reach is None or self._first + len(self._samples) < max(self._window, self._reach):
            return 0
        return (self._first + len(self._samples) - self._reach) // self._hop + 1

    def _compute(self, stop: int) -> bool:
        """Compute more rows; False at the end."""
        self._forget((self._high * self._hop) - self._margin)
        wanted = min(stop, self._high + self._chunk)
        while self._available() < wanted and self._read():
            self._forget((self._high * self._hop) - self._margin)
        last = min(self._available(), self._high + self._chunk)
        if self._reach is None:
            last = self._available()
        if last <= self._high:
            return False
        end = len(self._samples)
        if not (self._ended and last == self.total_rows):
            end = (last - 1) * self._hop + (self._reach or 0) - self._first
        made = self._extract(torch.from_numpy(self._samples[:end])[None])
        skipped = self._high - self._first // self._hop
        made = made[..., skipped : skipped + last - self._high]
        self._rows = made if self._rows is None or self._low == self._high else torch.cat([self._rows, made], dim=-1)
        self._high = last
        return True

    def _forget(self, before: int) -> None:
        """Drop samples before a place, in whole hops: what is kept begins on the grid of rows."""
        if self._reach is not None:
            cut = min(before - self._first, len(self._samples))
            self._cut(self._first + max(0, cut) // self._hop * self._hop)

    def _read(self) -> bool:
        """Read one block; False at the end, where a short recording is padded."""
        if self._ended:
            return False
        block = next(self._blocks, None)
        if block is None:
            self._ended = True
            if self.n_samples < self._window:
                self._samples = fit_length(self._samples, self._window, self._pad)
            return False
        self.n_samples += len(block)
        self._samples = np.concatenate([self._samples, block]) if len(self._samples) else np.asarray(block)
        return True

    def _read_whole(self) -> bool:
        """Read all blocks, for features that depend on all of them; False where the recording is too long for that."""
        while not self._ended and self.n_samples <= self._most:
            self._read()
        return self._ended and self._first == 0

    def _alone(self, start: int, stop: int) -> Tensor | None:
        """Return a window of a recording that is too long to be held, computed from its own samples."""
        while True:
            self._cut((self._low - 1) * self._hop)
            if self._first + len(self._samples) >= start * self._hop + self._window or not self._read():
                break
        end = start * self._hop + self._window
        if end - self.n_samples >= self._hop:
            return None
        end = min(end, self.n_samples)  # the last place on the grid may lie a part of a hop beyond
        window = self._samples[end - self._window - self._first : end - self._first]
        return self._extract(torch.from_numpy(np.ascontiguousarray(window))[None])[..., : stop - start]

    def _cut(self, before: int) -> None:
        cut = min(max(0, before - self._first), len(self._samples))
        self._samples, self._first = self._samples[cut:], self._first + cut


def cut_windows(stream: RowStream, length: int, starts: Iterable[int], to_end: bool) -> Iterator[tuple[int, Tensor]]:
    """Yield windows of `length` rows: (first row, rows (1, ..., length)).

    Args:
        starts: ascending.
        to_end: also yield a last window that ends with the recording, where none of `starts` does; see `data.windows.window_starts`.
    """
    last = -1
    for start in starts:
        stream.drop(last + 1 if to_end else start)
        rows = stream.take(start, start + length)
        if rows is None:
            break
        yield start, rows
        last = start
    else:
        return
    room = max(0, stream.total_rows - length)
    if to_end and room > last:
        rows = stream.take(room, room + length)
        if rows is not None:
            yield room, rows
