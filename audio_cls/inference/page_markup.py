"""The answer of the page in HTML: spectrograms, bars of each model's labels, and what a long recording holds over time."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audio_cls.core.formatting import duration, printable

if TYPE_CHECKING:
    from audio_cls.inference.labeller import Labeller
    from audio_cls.inference.timeline import Event

__all__ = [
    "STYLE",
    "Answer",
    "Event",
    "ModelAnswer",
    "Picture",
    "Strip",
    "answer_markup",
    "fault_markup",
    "heading_markup",
]

EVENTS_SHOWN = 200  # rows of a table
TICKS = 5  # numbers below a picture


@dataclass(frozen=True)
class Picture:
    """A spectrogram as a PNG, time to the right; `caption` says which features of which models."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Strip:
    """Probabilities over time as a PNG with a row for each of `labels`, the first at the top."""

    png: bytes
    labels: Sequence[str]


@dataclass(frozen=True)
class ModelAnswer:
    """What one model says: (label, probability), the most probable first; `windows` says which windows were judged.

    `strip` and `events` are of a recording that is longer than the model's window; `called` says which labels become events.
    """

    name: str
    top: Sequence[tuple[str, float]]
    windows: str = ""
    strip: Strip | None = None
    events: Sequence[Event] = ()
    called: str = ""


@dataclass(frozen=True)
class Answer:
    """What the page shows of one recording."""

    title: str
    seconds: float
    pictures: Sequence[Picture] = field(default=())
    models: Sequence[ModelAnswer] = field(default=())


def heading_markup(models: Sequence[Labeller]) -> str:
    """Return what stands above the recording: the models, what they tell apart and how long they listen."""
    lines = "".join(
        f"<li><b>{_text(model.name)}</b>: {len(model.classes)} classes, {model.sample_rate} Hz, "
        f"{f'windows of {model.window_seconds:g} s' if model.window_seconds else 'the recording as a whole'}</li>"
        for model in models
    )
    return f'<div class="answer"><h2>What is it?</h2><ul class="about">{lines}</ul></div>'


def answer_markup(answer: Answer) -> str:
    """Return the answer as HTML, every text escaped."""
    pictures = "".join(_picture(picture, answer.seconds) for picture in answer.pictures)
    models = "".join(_model(model, answer.seconds) for model in answer.models)
    return (
        f'<div class="answer"><p class="facts"><b>{_text(answer.title)}</b> {_length(answer.seconds)}</p>'
        f'{pictures}<div class="models">{models}</div></div>'
    )


def fault_markup(sentence: str) -> str:
    """Return why there is no answer."""
    return f'<div class="answer"><p class="fault" role="alert">{_text(sentence)}</p></div>'


def _picture(picture: Picture, seconds: float) -> str:
    return (
        f'<figure><img alt="spectrogram" src="{_source(picture.png)}">{_axis(seconds)}'
        f"<figcaption>{_text(picture.caption)}</figcaption></figure>"
    )


def _model(model: ModelAnswer, seconds: float) -> str:
    bars = "".join(
        f'<li><span title="{_text(label)}">{_text(label)}</span><b><i style="width:{100 * min(1.0, score):.1f}%"></i></b>'
        f"<em>{score:.2f}</em></li>"
        for label, score in model.top
    )
    note = f'<p class="note">{_text(model.windows)}</p>' if model.windows else ""
    return (
        f'<section><h3>{_text(model.name)}</h3><ol class="bars">{bars}</ol>{note}{_over_time(model, seconds)}</section>'
    )


def _over_time(model: ModelAnswer, seconds: float) -> str:
    """Return the picture over time and the table of events of a long recording."""
    if model.strip is None:
        return ""
    names = "".join(f'<span title="{_text(label)}">{_text(label)}</span>' for label in model.strip.labels)
    strip = (
        f'<div class="strip" style="--rows:{len(model.strip.labels)}"><div class="names">{names}</div>'
        f'<div><img alt="probabilities over time" src="{_source(model.strip.png)}">{_axis(seconds)}</div></div>'
    )
    rows = "".join(
        f"<tr><td>{_clock(e.start)}</td><td>{_clock(e.end)}</td><td>{_text(e.label)}</td><td>{e.score:.2f}</td></tr>"
        for e in model.events[:EVENTS_SHOWN]
    )
    more = len(model.events) - EVENTS_SHOWN
    left = f'<p class="note">{more:,} more: audio-cls predict lists all</p>' if more > 0 else ""
    head = "<tr><th>start</th><th>end</th><th>label</th><th>score</th></tr>"
    table = f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>{left}'
    none = '<p class="note">no label passes its threshold anywhere</p>'
    return f'<h4>Over time</h4>{strip}{table if model.events else none}<p class="note">{_text(model.called)}</p>'


def _axis(seconds: float) -> str:
    times = [seconds * k / (TICKS - 1) for k in range(TICKS)]
    ticks = "".join(f"<span>{f'{t:.0f} s' if 20 <= seconds < 60 else _clock(t)}</span>" for t in times)
    return f'<div class="axis">{ticks}</div>'


def _clock(seconds: float) -> str:
    """Return `3.2 s`, `2:05` or `1:02:05`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{whole // 60}:{whole % 60:02d}"


def _length(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else duration(seconds)


def _source(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _text(text: str) -> str:
    return html.escape(printable(text), quote=True)


STYLE = """
.html-container { padding: 0 !important; }
.answer { font-size: 15px; line-height: 1.4; color: var(--body-text-color); }
.answer p { margin: 4px 0; overflow-wrap: anywhere; }
.answer .facts { margin-bottom: 8px; }
.answer .fault { border-left: 4px solid #d55e00; padding: 8px 12px; background: var(--block-background-fill); }
.answer .note, .answer figcaption { opacity: 0.7; font-size: 13px; overflow-wrap: anywhere; }
.answer figure { margin: 0 0 16px; }
.answer img { display: block; width: 100%; image-rendering: auto; border-radius: 4px; background: #0c0a30; }
.answer figure img { height: 180px; }
.answer .axis { display: flex; justify-content: space-between; font-size: 12px; opacity: 0.7; }
.answer .models { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 16px; }
.answer section { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 12px 16px; min-width: 0; }
.answer h2 { font-size: 22px; margin: 0 0 4px; }
.answer .about { margin: 0; padding: 0; list-style: none; opacity: 0.7; font-size: 14px; }
.answer h3 { font-size: 16px; margin: 0 0 8px; overflow-wrap: anywhere; }
.answer h4 { font-size: 14px; margin: 14px 0 6px; }
.answer .bars { list-style: none; margin: 0; padding: 0; display: grid; gap: 6px; }
.answer .bars li { display: grid; grid-template-columns: minmax(80px, 34%) 1fr 40px; gap: 10px; align-items: center; margin: 0; }
.answer .bars span, .answer .names span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.answer .bars b { background: var(--border-color-primary); border-radius: 3px; height: 12px; overflow: hidden; }
.answer .bars i { display: block; height: 100%; background: #0072b2; }
.answer .bars em { font-style: normal; font-variant-numeric: tabular-nums; text-align: right; }
.answer .strip { display: grid; grid-template-columns: minmax(60px, 28%) 1fr; gap: 8px; }
.answer .strip img { height: calc(var(--rows) * 20px); image-rendering: pixelated; border-radius: 2px; }
.answer .names { display: grid; grid-auto-rows: 20px; font-size: 13px; text-align: right; align-items: center; min-width: 0; }
@media (max-width: 600px) { .answer .strip .axis span:nth-child(even) { display: none; } }
.answer .scroll { max-height: 320px; overflow: auto; margin-top: 8px; }
.answer table { border-collapse: collapse; border: 0 !important; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
.answer th, .answer td { text-align: left; padding: 3px 8px 3px 0 !important; border: 0 solid var(--border-color-primary) !important; }
.answer tr { border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; }
.answer th { position: sticky; top: 0; background: var(--block-background-fill); font-weight: 600; }
"""
