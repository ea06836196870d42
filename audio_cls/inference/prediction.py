"""Label files with one model or several side by side, and with the average of their probabilities."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count
from audio_cls.data.audio import BadAudio
from audio_cls.inference.labeller import Labelled, Labeller, Opener, WindowScore, without_path
from audio_cls.inference.streaming import AudioStream, Blocks, PcmPipe, PcmStream, Sound
from audio_cls.inference.timeline import DEFAULT_MERGING, Event, Merging, merge_windows, thresholds_of

__all__ = ["AVERAGE", "Meter", "check_average", "label_files", "label_timeline", "timeline_words"]

AVERAGE = "average"
KEPT_SAMPLES = 1 << 24  # decoded for one model and kept for the others: 64 MiB
_SAME_HOP = 1e-9  # seconds


@dataclass
class Meter:
    """Opens files and counts the audio that is read: `opener` is what labellers take.

    Attributes:
        sounds: what to read instead of a path, such as a copy of standard input.
        on_block: called with the seconds of audio read so far.
        n_files: files that are done, counted by the caller.
    """

    sounds: dict[Path, Sound | PcmPipe] = field(default_factory=dict)
    on_block: Callable[[float], None] | None = None
    seconds: float = 0.0
    n_files: int = 0
    began: float = field(default_factory=time.perf_counter)

    def opener(self, sample_rates: Sequence[int]) -> Opener:
        """Return a function that opens a file for models at these sample rates, of which each opens it once.

        A file that several models at one rate read is decoded once, unless more than `KEPT_SAMPLES` would wait for the other models.
        """
        kept: dict[tuple[Path, int], tuple[AudioStream, int]] = {}

        def open_file(path: Path, sample_rate: int) -> Blocks:
            found = self.sounds.get(path, path)
            if isinstance(found, PcmPipe):
                return _MeteredBlocks(PcmStream(found, sample_rate), self, 1 / len(sample_rates) / sample_rate)
            key = path, sample_rate
            if key in kept:
                stream, left = kept.pop(key)
            else:
                stream, left = AudioStream(found, sample_rate), sample_rates.count(sample_rate)
            waiting = sum(other.n_decoded for other, _ in kept.values())
            if left > 1 and 0 < stream.n_decoded <= KEPT_SAMPLES - waiting:
                kept[key] = stream, left - 1
            return _MeteredBlocks(stream, self, 1 / len(sample_rates) / sample_rate)

        return open_file

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        if self.on_block is not None:
            self.on_block(self.seconds)

    def throughput(self) -> str:
        """Return in words how fast files were labelled."""
        took = max(time.perf_counter() - self.began, 1e-9)
        return (
            f"{count(self.n_files, 'file')}, {self.seconds:,.1f} s of audio in {took:,.1f} s: {self.seconds / took:,.0f} times real time, "
            f"{self.n_files / took:,.1f} files a second"
        )


class _MeteredBlocks:
    """Tells a meter of each block that is read: `seconds` of each sample."""

    def __init__(self, source: Blocks, meter: Meter, seconds: float) -> None:
        self.n_samples = source.n_samples
        self._source, self._meter, self._seconds = source, meter, seconds

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for block in self._source:
            self._meter.add(len(block) * self._seconds)
            yield block


def check_average(labellers: Sequence[Labeller]) -> None:
    """Refuse to average models that do not answer the same question.

    Raises:
        UserError: for one model alone, other classes, or one label a clip beside several.
    """
    if len(labellers) < 2:
        raise UserError("an average needs two models or more: name others as well")
    first = labellers[0]
    for other in labellers[1:]:
        if sorted(other.classes) != sorted(first.classes):
            differing = sorted(set(first.classes) ^ set(other.classes))
            raise UserError(
                f"{first.name} and {other.name} have no average: they know other labels ({', '.join(differing[:5])}"
                f"{', ...' if len(differing) > 5 else ''}). Side by side they can be shown"
            )
        if other.task != first.task:
            raise UserError(
                f"{first.name} and {other.name} have no average: one is {first.task}, the other {other.task}"
            )


def label_files(
    labellers: Sequence[Labeller],
    paths: Sequence[Path],
    *,
    hop_seconds: float | None = None,
    average: bool = False,
    meter: Meter | None = None,
) -> Iterator[list[tuple[str, Labelled]]]:
    """Yield for each file its answers: (name of the model, answer), in the order of the models, then the average if asked for. A file
    that cannot be read has one answer, with the reason.

    Raises:
        UserError: as `check_average`, and for a hop where a model judges recordings as a whole.
    """
    if average:
        check_average(labellers)
    opener = (meter or Meter()).opener([labeller.sample_rate for labeller in labellers])
    answers = [labeller.label(paths, hop_seconds, opener) for labeller in labellers]
    for found in zip(*answers, strict=True):
        bad = next((one for one in found if one.scores is None), None)
        if bad is not None:
            yield [(labellers[found.index(bad)].name, bad)]
            continue
        named = [(labeller.name, one) for labeller, one in zip(labellers, found, strict=True)]
        yield [*named, (AVERAGE, _averaged(labellers, found))] if average else named


def timeline_words(
    labellers: Sequence[Labeller], hop_seconds: float | None, merging: Merging, average: bool
) -> dict[str, str]:
    """Return for each model, or for the average, in words: the windows, the thresholds and the merging that make its events.

    Raises:
        UserError: for a model that judges recordings as a whole; as `check_average`; for models whose windows do not lie on one grid where
            an average is asked for.
    """
    if average:
        check_average(labellers)
        _check_grid(labellers, hop_seconds)
    out = {}
    for labeller in labellers[:1] if average else labellers:
        _, limits = thresholds_of(labeller, merging.threshold)
        words = f"windows of {labeller.window_seconds:g} s every {labeller.actual_hop(hop_seconds):.4g} s, {limits}"
        words += f", events of {merging.min_length:g} s or more" if merging.min_length else ""
        words += f", gaps below {merging.merge_gap:g} s closed" if merging.merge_gap else ""
        out[AVERAGE if average else labeller.name] = words
    return out


def label_timeline(
    labellers: Sequence[Labeller],
    path: Path,
    *,
    hop_seconds: float | None = None,
    merging: Merging = DEFAULT_MERGING,
    average: bool = False,
    meter: Meter | None = None,
) -> Iterator[tuple[str, Event]]:
    """Yield (name of the model, event) of one file: each model's events in turn, or those of the average alone if it is asked for, which
    `timeline_words` checks first.

    Raises:
        BadAudio: for a file that cannot be read; what was heard before the fault has been yielded.
    """
    opener = (meter or Meter()).opener([labeller.sample_rate for labeller in labellers])
    try:
        if average:
            windows = [one.windows(opener(path, one.sample_rate), hop_seconds) for one in labellers]
            yield from ((AVERAGE, event) for event in merge_windows(_mean(labellers, windows), labellers[0], merging))
            return
        for labeller in labellers:
            found = labeller.windows(opener(path, labeller.sample_rate), hop_seconds)
            yield from ((labeller.name, event) for event in merge_windows(found, labeller, merging))
    except (OSError, ValueError) as error:
        raise BadAudio(without_path(error, path)) from None


def _averaged(labellers: Sequence[Labeller], found: Sequence[Labelled]) -> Labelled:
    first = found[0]
    scores = np.mean(
        [_in_order(labeller, one.scores, labellers[0]) for labeller, one in zip(labellers, found, strict=True)], axis=0
    )
    windows = first.windows if all(one.windows == first.windows for one in found) else "each model by its own windows"
    return Labelled(first.path, scores, seconds=first.seconds, windows=windows)


def _in_order(labeller: Labeller, scores: NDArray[np.float64] | None, first: Labeller) -> NDArray[np.float64]:
    """Return a labeller's scores in the order of the first one's classes."""
    assert scores is not None
    return scores[[labeller.classes.index(label) for label in first.classes]]


def _mean(labellers: Sequence[Labeller], windows: Sequence[Iterable[WindowScore]]) -> Iterator[WindowScore]:
    for found in zip(*windows, strict=False):
        scores = [_in_order(labeller, one.scores, labellers[0]) for labeller, one in zip(labellers, found, strict=True)]
        yield WindowScore(found[0].start, found[0].end, np.mean(scores, axis=0))


def _check_grid(labellers: Sequence[Labeller], hop_seconds: float | None) -> None:
    first = labellers[0]
    for other in labellers[1:]:
        lengths = first.window_seconds, other.window_seconds
        hops = first.actual_hop(hop_seconds), other.actual_hop(hop_seconds)
        if lengths[0] != lengths[1] or abs(hops[0] - hops[1]) > _SAME_HOP:
            raise UserError(
                f"{first.name} and {other.name} have no average timeline: windows of {lengths[0]:g} s every {hops[0]:g} s, and of "
                f"{lengths[1]:g} s every {hops[1]:g} s. Side by side they can be shown, and another --hop may suit both"
            )
