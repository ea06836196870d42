"""The page about a data set: its tables, its counts, its durations, and one clip of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from audio_cls.components.features import LogMel
from audio_cls.data.corpus import Corpus
from audio_cls.report.data_figures import clip_figure, count_figure, duration_figure, rows_figure
from audio_cls.report.description import describe
from audio_cls.report.page import Section, Table, findings, render_page

__all__ = ["data_report"]

CLASSES_SHOWN = 12
ROWS_SHOWN = 1000
PAIRS_SHOWN = 500


def data_report(corpus: Corpus, path: Path | None = None, classes_shown: int = CLASSES_SHOWN) -> str:
    """Return the page as HTML, also written to `path`. A clip is drawn for each of the first `classes_shown` classes."""
    description = describe(corpus)
    tables = [
        Table(list(t.columns), [list(row) for row in t.rows], caption=t.title)
        for t in description.tables(most_pairs=PAIRS_SHOWN)
    ]
    counts = {f"fold {k}": np.array(v) for k, v in description.by_fold.items()}
    counts = (
        counts
        or {k: np.array(v) for k, v in description.by_split.items()}
        or {"clips": np.array(description.class_counts)}
    )
    sections = [
        Section("In numbers", [*findings(description.warnings), *tables]),
        Section("Clips", [count_figure(counts, corpus.classes), duration_figure(corpus.seconds)]),
        Section("One clip of each class", _examples(corpus, classes_shown)),
    ]
    return render_page(f"Data: {corpus.name}", sections, path)


def _examples(corpus: Corpus, limit: int) -> Sequence[object]:
    """Return the clip of median duration of each class: a waveform with its log-mel, other rows as they are."""
    figures: list[object] = []
    for k, name in enumerate(corpus.classes[:limit]):
        clips = np.flatnonzero(corpus.targets[:, k] > 0)
        if not len(clips):
            continue
        clip = int(clips[np.argsort(corpus.lengths[clips], kind="stable")[len(clips) // 2]])
        title = f"{name}: {corpus.ids[clip]}"
        if corpus.payload.is_waveform:
            figures.append(_waveform_figure(corpus, clip, title))
        else:
            figures.append(rows_figure(corpus.values(clip)[:ROWS_SHOWN], corpus.rate, title))
    return figures


def _waveform_figure(corpus: Corpus, clip: int, title: str) -> object:
    rate = corpus.sample_rate
    features = LogMel(n_mels=64, hop_length=max(1, rate // 100)).build(rate)
    wave = corpus.waveform(clip)[: 10 * rate]
    with torch.inference_mode():
        mel = features(torch.from_numpy(wave)[None])[0, 0].numpy()
    return clip_figure(wave, rate, mel, features.hop_length, title)
