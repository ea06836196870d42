"""The listening audit: the mistakes a model is surest of and the hits it is least sure of, with sound and spectrogram.

Wrong labels, inaudible events and clips with two classes are found here within a minute; no table shows them.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.metrics.predictions import Predictions
from audio_cls.report.page import Html, Section
from audio_cls.report.tables import decision_margin

__all__ = ["AuditClip", "Picked", "audit_sections", "colour_map", "encode_audio", "pick", "png"]

CLIPS = 12  # of each kind
SECONDS = 10.0  # of a clip at most: its loudest stretch
COLUMNS = 300  # of a spectrogram's picture at most
DYNAMIC = 70.0  # dB from the loudest point to the darkest colour
FORMATS = (("MP3", None, "audio/mpeg"), ("FLAC", "PCM_16", "audio/flac"), ("WAV", "PCM_16", "audio/wav"))
ANCHORS = ((12, 10, 48), (40, 52, 116), (32, 104, 134), (44, 150, 122), (134, 188, 84), (226, 214, 96), (255, 250, 208))

Waveform = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True)
class Picked:
    """One clip to hear: its row, the label in question (multilabel), and one line on why."""

    index: int
    why: str
    label: int | None = None


@dataclass(frozen=True)
class AuditClip:
    """What the card of a clip shows. `top`: (class, probability, whether true), the likeliest first."""

    clip_id: str
    why: str
    true: Sequence[str]
    top: Sequence[tuple[str, float, bool]]
    waveform: NDArray[np.float32]
    sample_rate: float


def pick(predictions: Predictions, limit: int = CLIPS) -> dict[str, list[Picked]]:
    """Return the clips worth hearing, by heading, `limit` in each list; none if a score is NaN.

    With one label a clip: wrong clips by falling and right ones by rising distance of the highest score to the second. With
    several: false alarms and misses, the farthest from their thresholds first; a clip once a list.
    """
    scores, truth = np.asarray(predictions.scores, np.float64), np.asarray(predictions.targets) > 0.5
    if np.isnan(scores).any():
        return {}
    task, classes, thresholds, called = (
        predictions.task, predictions.classes, predictions.thresholds, predictions.called,
    )  # fmt: skip
    if task == "multilabel":
        limits = np.broadcast_to(np.asarray(0.5 if thresholds is None else thresholds, np.float64), scores.shape)
        return {
            "False alarms": _labels(called & ~truth, scores, limits, classes, limit),
            "Misses": _labels(truth & ~called, scores, limits, classes, limit),
        }
    margin = np.nan_to_num(decision_margin(scores, task))
    best = scores.argmax(axis=1)
    right = truth[np.arange(len(best)), best]
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-margin[wrong], kind="stable")][:limit]
    unsure = np.flatnonzero(right)
    unsure = unsure[np.argsort(margin[unsure], kind="stable")][:limit]
    return {
        "Most confident mistakes": [Picked(k, f"called {classes[best[k]]}") for k in wrong.tolist()],
        "Least confident hits": [Picked(k, f"rightly called {classes[best[k]]}") for k in unsure.tolist()],
    }


def audit_sections(
    predictions: Predictions, waveform: Waveform, sample_rate: float, limit: int = CLIPS
) -> list[Section]:
    """Return the sections of a page.

    Args:
        waveform: number of a clip among the predictions -> (n_samples,) float32 in [-1, 1]; or other rows (n, *row), which are
            shown and not played.
        sample_rate: in Hz, or rows a second.
        limit: clips of each kind.
    """
    picked, classes = pick(predictions, limit), predictions.classes
    if not picked:
        return [Section("Listen", ["The scores are not numbers: the model diverged."])]
    scores, truth = np.asarray(predictions.scores), np.asarray(predictions.targets) > 0.5
    sections = []
    for heading, clips in picked.items():
        cards = []
        for chosen in clips:
            top = np.argsort(-scores[chosen.index], kind="stable")[:3].tolist()
            if chosen.label is not None and chosen.label not in top:
                top[-1] = chosen.label
            clip = AuditClip(
                clip_id=predictions.clips[chosen.index],
                why=chosen.why,
                true=[classes[k] for k in np.flatnonzero(truth[chosen.index]).tolist()],
                top=[(classes[k], float(scores[chosen.index, k]), bool(truth[chosen.index, k])) for k in top],
                waveform=waveform(chosen.index),
                sample_rate=sample_rate,
            )
            cards.append(_card(clip))
        none = f"There are none: {heading.lower()}, 0." if not clips else ""
        content: list[Any] = [none] if none else [Html(f'<div class="clips">{"".join(cards)}</div>')]
        sections.append(Section(f"Listen: {heading.lower()}", content))
    style = Html(f"<style>\n{_asset('audit.css')}</style>")
    script = Html(f"<script>\n{{{_asset('audit.js')}}}\n</script>")
    reading = (
        "True labels are bold and blue. A click on a spectrogram plays from there; low frequencies are at the bottom."
    )
    first, last = sections[0], sections[-1]
    sections[0] = Section(first.heading, [style, reading, *first.content])
    last = sections[-1]
    sections[-1] = Section(last.heading, [*last.content, script])
    return sections


def encode_audio(waveform: NDArray[np.float32], sample_rate: int) -> str:
    """Return a data URI of mono sound: MP3, which every browser plays, else FLAC, else WAV (rates that MP3 does not
    know).
    """
    import soundfile as sf

    sound = np.clip(np.asarray(waveform, np.float32), -1, 1)
    for kind, subtype, media in FORMATS:
        if kind not in sf.available_formats():
            continue
        buffer = io.BytesIO()
        try:
            sf.write(buffer, sound, sample_rate, format=kind, subtype=subtype)
        except sf.LibsndfileError:
            continue
        return f"data:{media};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    raise ValueError(f"{sample_rate} Hz: no format takes this sample rate")


def png(values: NDArray[Any], low: float, high: float) -> bytes:
    """Return a PNG of (rows, columns) values between `low` and `high` in `colour_map`; the first row is at the bottom."""
    from PIL import Image

    scaled = (np.asarray(values, np.float64)[::-1] - low) / max(high - low, 1e-12)
    pixels = np.clip(np.round(scaled * 255), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.putpalette(colour_map().tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def rgb_png(rows: NDArray[Any]) -> bytes:
    """Return a PNG of columns of pixels (columns, channels, height), values from 0 to 1."""
    from PIL import Image

    pixels = np.clip(np.rint(np.asarray(rows, np.float32) * 255), 0, 255).astype(np.uint8).transpose(2, 0, 1)
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def colour_map() -> NDArray[np.uint8]:
    """(256, 3) colours from dark blue over green to pale yellow; lightness rises throughout, so it reads without hue."""
    anchors = np.array(ANCHORS, float)
    at = np.linspace(0, len(anchors) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, k]) for k in range(3)], axis=1).round().astype(np.uint8)  # fmt: skip


def _labels(
    wrong: NDArray[np.bool_],
    scores: NDArray[np.float64],
    limits: NDArray[np.float64],
    classes: Sequence[str],
    limit: int,
) -> list[Picked]:
    clips, labels = np.nonzero(wrong)
    order = np.argsort(-np.abs(scores - limits)[clips, labels], kind="stable")
    out: dict[int, Picked] = {}
    for at in order.tolist():
        clip, label = int(clips[at]), int(labels[at])
        if clip not in out:
            why = f"{classes[label]}: {scores[clip, label]:.2f}, threshold {limits[clip, label]:.2f}"
            out[clip] = Picked(clip, why, label)
        if len(out) == limit:
            break
    return list(out.values())


def _card(clip: AuditClip) -> str:
    bars = "".join(
        f'<span{" class=true" if true else ""} title="{html.escape(name)}">{html.escape(name)}</span>'
        f'<b{" class=true" if true else ""} style="width:{100 * min(1.0, score):.1f}%"></b><em>{score:.2f}</em>'
        for name, score, true in clip.top
    )
    true = html.escape(", ".join(clip.true) or "no label")
    media = _still(clip) if clip.waveform.ndim > 1 else _sound(clip)
    return (
        f'<article class="clip"><h3>{true}: {html.escape(clip.why)}</h3>'
        f'<p class="name">{html.escape(clip.clip_id)}</p>{media}<div class="bars">{bars}</div></article>'
    )


def _sound(clip: AuditClip) -> str:
    """Return the loudest stretch of a clip as a spectrogram with a player."""
    rate = int(clip.sample_rate)
    sound, start = _loudest(np.asarray(clip.waveform, np.float32), round(SECONDS * rate))
    if not len(sound):
        return '<p class="name">the clip is empty</p>'
    seconds, whole = len(sound) / rate, len(clip.waveform) / rate
    end = f"{start / rate:.1f}–{start / rate + seconds:.1f} of {whole:.1f} s" if whole > seconds else f"{seconds:.1f} s"
    picture = base64.b64encode(_spectrogram(sound, rate)).decode()
    return (
        f'<div class="picture" data-seconds="{seconds:.3f}"><img alt="log-mel spectrogram" '
        f'src="data:image/png;base64,{picture}"><i hidden></i></div>'
        f'<div class="span"><span>{start / rate:.1f}</span><span>{end}</span></div>'
        f'<audio controls preload="none" src="{encode_audio(sound, rate)}"></audio>'
    )


def _still(clip: AuditClip) -> str:
    """Return the beginning of a clip of other rows as a picture: vectors (rows, n) in colours, pixels as they are."""
    rows = clip.waveform[:COLUMNS]
    data = rgb_png(rows) if rows.ndim == 3 else png(rows.T, float(rows.min()), float(rows.max()))
    picture, seconds = base64.b64encode(data).decode(), len(clip.waveform) / clip.sample_rate
    return (
        f'<div class="still"><img alt="the clip" src="data:image/png;base64,{picture}"></div>'
        f'<div class="span"><span>0</span><span>{len(rows) / clip.sample_rate:.1f} of {seconds:.1f} s</span></div>'
    )


def _loudest(waveform: NDArray[np.float32], samples: int) -> tuple[NDArray[np.float32], int]:
    """Return the stretch of at most `samples` with the most energy, and where it begins (to a tenth of the stretch)."""
    if len(waveform) <= samples:
        return waveform, 0
    energy = np.r_[0.0, np.cumsum(waveform.astype(np.float64) ** 2)]
    starts = np.unique(np.r_[np.arange(0, len(waveform) - samples, max(1, samples // 10)), len(waveform) - samples])
    start = int(starts[np.argmax(energy[starts + samples] - energy[starts])])
    return waveform[start : start + samples], start


def _spectrogram(waveform: NDArray[np.float32], sample_rate: int) -> bytes:
    """Return a log-mel picture with 70 dB from its loudest point down, at most about `COLUMNS` wide."""
    import torch

    from audio_cls.components.features import LogMel

    hop = max(sample_rate // 100, len(waveform) // COLUMNS + 1)
    n_fft = 1 << (2 * max(hop, sample_rate // 50) - 1).bit_length()  # some 40 ms, and frames that overlap
    features = LogMel(n_mels=64, n_fft=n_fft, hop_length=hop).build(sample_rate)
    sound = np.pad(waveform, (0, max(0, n_fft - len(waveform))))
    with torch.inference_mode():
        mel = features(torch.from_numpy(sound)[None])[0, 0].numpy()[:, : len(waveform) // hop + 1]
    top = float(mel.max())
    return png(mel, top - DYNAMIC, top)


def _asset(name: str) -> str:
    return resources.files("audio_cls.report").joinpath(name).read_text(encoding="utf-8")
