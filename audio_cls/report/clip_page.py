"""The page about one clip: its labels, its sound, its spectrogram by several settings, and what each augmentation makes of it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audio_cls.components.augment import Augmentation
from audio_cls.components.features import FeatureExtractor, Features
from audio_cls.data.corpus import Corpus
from audio_cls.report.audit import encode_audio
from audio_cls.report.data_figures import clip_figure, rows_figure
from audio_cls.report.page import Html, Section, Table, render_page

__all__ = ["clip_page"]

SECONDS_SHOWN = 30.0


def clip_page(
    corpus: Corpus, clip: int, variants: Sequence[tuple[str, Features]], path: Path | None = None, seed: int = 0
) -> str:
    """Return the page as HTML, also written to `path`.

    Args:
        clip: its number in the corpus.
        variants: features to draw, resolved for the corpus, each with what its settings are; the first is what augmentations
            are shown with.
        seed: of the augmentations' draws.
    """
    sections = [Section("Clip", [_facts(corpus, clip)])]
    if corpus.payload.is_waveform:
        wave = corpus.waveform(clip)[: int(SECONDS_SHOWN * corpus.sample_rate)]
        extractors = [(label, features.build_for(corpus.payload)) for label, features in variants]
        sections[0] = Section("Clip", [_facts(corpus, clip), _player(wave, corpus.sample_rate)])
        sections.append(
            Section("Spectrograms", [_figure(wave, corpus.sample_rate, e, label) for label, e in extractors])
        )
        sections.append(Section("Augmentations", _augmented(corpus, clip, wave, extractors[0][1], seed)))
    else:
        sections.append(Section("Rows", [rows_figure(corpus.values(clip), corpus.rate, corpus.ids[clip])]))
    return render_page(f"Clip: {corpus.ids[clip]}", sections, path)


def _facts(corpus: Corpus, clip: int) -> Table:
    found = corpus.clips[clip]
    facts = {
        "corpus": corpus.name,
        "labels": ", ".join(found.labels) or "none",
        "families": ", ".join(dict.fromkeys(f for name in found.labels for f in corpus.families.get(name, ()))),
        "fold": found.fold,
        "split": found.split,
        "group": found.group,
        "seconds": f"{corpus.seconds[clip]:.3f}",
        "file": str(found.path),
        **{name: values[clip] for name, values in corpus.extra.items()},
    }
    if corpus.payload.is_waveform:
        facts["original"] = f"{corpus.source_rates[clip]} Hz, {corpus.source_channels[clip]} channels"
    return Table(["", "value"], [[name, str(value)] for name, value in facts.items() if value not in (None, "")])


def _player(wave: NDArray[np.float32], rate: int, label: str = "") -> Html:
    return Html(f'<p>{html.escape(label)} <audio controls preload="none" src="{encode_audio(wave, rate)}"></audio></p>')


def _figure(wave: NDArray[np.float32], rate: int, features: FeatureExtractor, label: str) -> object:
    return _drawn(wave, rate, _spectrogram(wave, features)[0, 0], features.hop_length, label)


def _drawn(wave: NDArray[np.float32], rate: int, spectrogram: Tensor, hop_length: int, label: str) -> object:
    return clip_figure(wave, rate, spectrogram.numpy(), hop_length, label)


def _spectrogram(wave: NDArray[np.float32], features: FeatureExtractor) -> Tensor:
    """Return (1, 1, n_bins, frames)."""
    with torch.inference_mode():
        return features(torch.from_numpy(np.ascontiguousarray(wave))[None]).clone()


def _augmented(
    corpus: Corpus, clip: int, wave: NDArray[np.float32], features: FeatureExtractor, seed: int
) -> list[object]:
    """Return a figure for each augmentation of one clip, applied for certain; of those of waveforms the sound too.

    Those that mix are given the first clip with other labels beside it.
    """
    parts: list[object] = []
    rate, hop = corpus.sample_rate, features.hop_length
    other = _other_clip(corpus, clip)
    for kind, member in Augmentation.members().items():
        required = any(field.is_required() for field in member.model_fields.values())
        if required or not member.stands_alone or not (member.takes("waveform") or member.takes("spectrogram")):
            continue
        config = member(**({"p": 1.0} if "p" in member.model_fields else {}))
        op, generator = config.build(rate, hop), torch.Generator().manual_seed(seed)
        on_waveforms, mixes = config.stage.startswith("waveform"), config.stage in ("waveform_mix", "mix")
        label = f"{kind}: {' '.join((member.__doc__ or '').split()).partition('. ')[0].rstrip('.')}"
        waves = [wave.copy()]
        if mixes and other is not None:
            beside = corpus.waveform(other)[: len(wave)]
            waves.append(np.pad(beside, (0, len(wave) - len(beside))))
        x = torch.from_numpy(np.stack(waves))
        with torch.inference_mode():
            x = x if on_waveforms else features(x).clone()
            if mixes:
                if other is None:
                    continue
                x, y = op(x, torch.eye(2), generator)
                label = f"{kind}: {float(y[0, 0]):.0%} of this clip, {float(y[0, 1]):.0%} of {corpus.ids[other]}"
            else:
                x = op(x, generator)
        changed = x[0].numpy()
        if on_waveforms:
            parts += [_player(changed, rate, kind), _figure(changed, rate, features, label)]
        else:
            parts.append(_drawn(wave, rate, x[0, 0], hop, label))
    return parts


def _other_clip(corpus: Corpus, clip: int) -> int | None:
    """Return the first clip with other labels; None where all have the same."""
    other = (corpus.targets != corpus.targets[clip]).any(1).nonzero()[0]
    return int(other[0]) if len(other) else None
