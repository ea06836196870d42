"""What the page shows of one recording: each model's labels, the spectrogram that it sees, and a timeline of a long one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from audio_cls.components.features import FeatureExtractor, LogMel
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import duration
from audio_cls.data.audio import BadAudio
from audio_cls.inference.page_markup import Answer, ModelAnswer, Picture, Strip
from audio_cls.inference.streaming import AudioStream, read_blocks
from audio_cls.inference.timeline import merge_windows, thresholds_of
from audio_cls.report.audit import png

if TYPE_CHECKING:
    from audio_cls.inference.labeller import Labeller, WindowScore

__all__ = ["LONGEST_SECONDS", "answer_of", "strip_of"]

LONGEST_SECONDS = 3600.0  # of a recording on the page: what is longer takes minutes, and audio-cls predict
COLUMNS = 900  # of a picture at most
CHUNK_COLUMNS = 100  # columns of a spectrogram that are computed at once, at least
STRIP_LABELS = 6  # rows of a picture over time
LOW, HIGH = 5, 99.9  # percentiles that the colours of a spectrogram run between

Array = NDArray[Any]


def answer_of(path: Path, labellers: Sequence[Labeller], top: int) -> Answer:
    """Return what the page shows of an audio file.

    Args:
        top: labels of each model.

    Raises:
        UserError: in one sentence, for what cannot be read or is too long.
    """
    try:
        seconds = AudioStream(path, labellers[0].sample_rate).seconds
        if seconds is None:
            raise BadAudio("its header names no length: save it once more")
        if seconds > LONGEST_SECONDS:
            raise BadAudio(
                f"it lasts {duration(seconds)}, and this page takes {duration(LONGEST_SECONDS)} at most: audio-cls predict labels files "
                "of any length"
            )
        models = [_model_answer(path, labeller, seconds, top) for labeller in labellers]
        return Answer(path.name, seconds, _pictures(path, labellers, seconds), models)
    except (BadAudio, OSError) as error:
        raise UserError(f"{path.name}: {str(error).removeprefix(f'{path}: ')}") from None


def _model_answer(path: Path, labeller: Labeller, seconds: float, top: int) -> ModelAnswer:
    found = next(labeller.label([path]))
    if found.scores is None:
        raise BadAudio(found.error)
    answers = labeller.top(found.scores, top)
    if labeller.window_seconds is None or seconds < labeller.window_seconds + labeller.hop_seconds:
        return ModelAnswer(labeller.name, answers, found.windows)
    windows = list(labeller.windows(read_blocks(path, labeller.sample_rate)))
    events = sorted(merge_windows(windows, labeller), key=lambda event: event.start)
    return ModelAnswer(
        labeller.name,
        answers,
        f"The bars: {found.windows}.",
        strip_of(windows, labeller, seconds),
        events,
        _called(labeller),
    )


def _called(labeller: Labeller) -> str:
    """Return in words what the timeline is made of."""
    window = f"windows of {labeller.window_seconds:g} s every {labeller.hop_seconds:g} s"
    return f"Over time: {window}; {thresholds_of(labeller)[1]}."


def strip_of(windows: Sequence[WindowScore], labeller: Labeller, seconds: float) -> Strip:
    """Return the probabilities over time of the labels that are likeliest somewhere; each column is the window nearest to it."""
    scores = np.stack([window.scores for window in windows])  # (n, n_classes)
    shown = np.argsort(-scores.max(axis=0), kind="stable")[:STRIP_LABELS]
    middles = np.array([(window.start + window.end) / 2 for window in windows])
    columns = (np.arange(COLUMNS) + 0.5) * seconds / COLUMNS
    after = np.clip(np.searchsorted(middles, columns), 1, max(1, len(middles) - 1))
    before = after - 1
    last = len(middles) - 1
    nearest = np.where(
        columns - middles[before] <= middles[np.minimum(after, last)] - columns, before, np.minimum(after, last)
    )
    rows = scores[nearest][:, shown].T[::-1]  # a picture's first row is at the bottom
    return Strip(png(rows, 0.0, 1.0), [labeller.classes[k] for k in shown.tolist()])


def _pictures(path: Path, labellers: Sequence[Labeller], seconds: float) -> list[Picture]:
    """Return a spectrogram for each kind of features; models that see the same share one."""
    names: dict[str, list[str]] = {}
    makers: dict[str, tuple[FeatureExtractor, int]] = {}
    for labeller in labellers:
        features, words = _features(labeller)
        names.setdefault(words, []).append(labeller.name)
        makers.setdefault(words, (features, labeller.sample_rate))
    return [
        Picture(
            _spectrogram(path, *makers[words], seconds),
            f"{words}: {', '.join(names[words])}" if len(names) > 1 else words,
        )
        for words in names
    ]


def _features(labeller: Labeller) -> tuple[FeatureExtractor, str]:
    """Return the features that a model sees, and their description; a log-mel spectrogram where those are no picture over time."""
    rate, experiment = labeller.sample_rate, getattr(labeller, "experiment", None)
    config = experiment.features if experiment is not None else None
    if config is not None and config.framewise and config.output_domain == "spectrogram":
        extractor: FeatureExtractor = getattr(labeller, "features")  # noqa: B009
        return extractor, f"{config.kind} of {extractor.n_bins} bands at {rate} Hz, as the model sees it"
    fitted = LogMel().fitted(rate, 5.0)
    return fitted.build(
        rate
    ), f"log_mel of 64 bands at {rate} Hz (the model takes {config.kind if config else 'the waveform'})"


@torch.inference_mode()
def _spectrogram(path: Path, features: FeatureExtractor, rate: int, seconds: float) -> bytes:
    """Return a PNG of at most about `COLUMNS` columns, each the mean of its frames; memory for a chunk, not for the recording."""
    hop = features.hop_length
    step = max(1, -(-features.frames(round(seconds * rate)) // COLUMNS))  # frames of a column
    size = hop * step * max(CHUNK_COLUMNS, -(-rate // (hop * step)))
    device = next((buffer.device for buffer in features.buffers()), torch.device("cpu"))
    columns = []
    for chunk in _chunks(read_blocks(path, rate), size):
        frames = features(torch.from_numpy(chunk)[None].to(device))[0, 0].float().cpu().numpy()  # (n_bins, frames)
        frames = frames[:, : max(1, len(chunk) // hop)]
        padded = np.pad(frames, ((0, 0), (0, -frames.shape[1] % step)), mode="edge")
        columns.append(padded.reshape(len(frames), -1, step).mean(axis=2))
    image = np.concatenate(columns, axis=1)
    sounding = image[image > image.min() + 1e-3 * np.ptp(image)]  # digital silence is not part of the scale
    low, high = np.percentile(sounding if len(sounding) else image, (LOW, HIGH))
    return png(image, float(low), float(high))


def _chunks(blocks: Iterator[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    """Yield the same samples in chunks of `size`; the last one is as long as what is left, and is never the rest of a chunk that is too
    short for a Fourier transform unless the recording is."""
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= 2 * size:
            yield held[:size]
            held = held[size:]
    if len(held):
        yield held
