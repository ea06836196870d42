"""Plotly figures of data: clips per class, durations, one clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from audio_cls.report.figures import PALETTE, layout, text

__all__ = ["clip_figure", "count_figure", "duration_figure", "rows_figure"]

Array = NDArray[Any]


def count_figure(counts: Mapping[str, Array], classes: Sequence[str], title: str = "Clips per class") -> go.Figure:
    """Return clips of each class, stacked by fold or split.

    Args:
        counts: name of the fold or split -> (n_classes,) clips.
        classes: names; drawn by falling total.
        title: of the figure.
    """
    total = np.sum([np.asarray(part) for part in counts.values()], axis=0) if counts else np.zeros(len(classes))
    order = np.argsort(-total, kind="stable")
    names = [text(classes[k]) for k in order.tolist()]
    positions = np.arange(len(names))
    figure = go.Figure(
        [
            go.Bar(
                x=np.asarray(part)[order],
                y=positions,
                orientation="h",
                name=text(name),
                marker={"color": PALETTE[index % len(PALETTE)], "line": {"color": "white", "width": 0.5}},
                customdata=names,
                hovertemplate=f"%{{customdata}}<br>{text(name)}: %{{x}}<extra></extra>",
            )
            for index, (name, part) in enumerate(counts.items())
        ]
    )
    height = int(np.clip(130 + 22 * len(names), 240, 2600))
    ticks = {"tickmode": "array", "tickvals": positions, "ticktext": names, "ticks": "", "showgrid": False}
    return figure.update_layout(
        layout(
            title,
            height,
            barmode="stack",
            xaxis={"title": {"text": "clips"}},
            yaxis={**ticks, "range": [len(names) - 0.4, -0.6]},
            legend={"traceorder": "normal"},
        )
    )


def duration_figure(seconds: Array) -> go.Figure:
    """Return a histogram of durations in seconds, (n_clips,), in at most 60 bins."""
    seconds = np.asarray(seconds, float)
    counts, edges = np.histogram(seconds, bins=min(60, max(10, int(np.sqrt(len(seconds))))))
    return go.Figure(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=np.diff(edges),
            marker={"color": PALETTE[0], "line": {"color": "white", "width": 0.5}},
            customdata=np.c_[edges[:-1], edges[1:]],
            hovertemplate="%{customdata[0]:.2f} to %{customdata[1]:.2f} s<br>%{y} clips<extra></extra>",
        ),
        layout("Durations", 320, xaxis={"title": {"text": "seconds"}}, yaxis={"title": {"text": "clips"}}),
    )


def clip_figure(
    waveform: Array,
    sample_rate: int,
    spectrogram: Array,
    hop_length: int,
    title: str = "",
    frequencies: Array | None = None,
) -> go.Figure:
    """Waveform above spectrogram on one time axis.

    Args:
        waveform: (n_samples,); drawn as the envelope of at most 1,000 stretches.
        sample_rate: in Hz.
        spectrogram: (n_bins, n_frames), such as a log-mel.
        hop_length: samples between frames.
        title: of the figure.
        frequencies: (n_bins,) centre frequencies in Hz, for the axis; bin numbers unless given.
    """
    wave = np.asarray(waveform, np.float32)
    step = max(1, -(-len(wave) // 1000))
    padded = np.pad(wave, (0, -len(wave) % step), mode="edge") if len(wave) else wave
    folded = padded.reshape(-1, step)
    envelope = np.stack([folded.min(axis=1), folded.max(axis=1)], axis=1).ravel() if len(wave) else wave
    at = np.repeat((np.arange(len(folded)) + 0.5) * step / sample_rate, 2)
    bins = np.arange(len(spectrogram)) if frequencies is None else np.asarray(frequencies)
    image = np.asarray(spectrogram, np.float32)
    figure = go.Figure(
        [
            go.Scatter(
                x=at, y=envelope, mode="lines", line={"width": 1, "color": PALETTE[0]}, hoverinfo="skip", yaxis="y2"
            ),
            go.Heatmap(
                z=image,
                x=np.arange(image.shape[1]) * hop_length / sample_rate,
                y=np.arange(len(bins)),
                customdata=np.broadcast_to(bins[:, None], image.shape) if frequencies is not None else None,
                colorscale="Cividis",
                showscale=False,
                hovertemplate="%{x:.3f} s, "
                + ("bin %{y}" if frequencies is None else "%{customdata:.0f} Hz")
                + ": %{z:.2f}<extra></extra>",
            ),
        ]
    )
    ticks: dict[str, Any] = {"title": {"text": "bin"}}
    if frequencies is not None:
        marks = np.unique(np.linspace(0, len(bins) - 1, 6).astype(int))
        ticks = {"tickvals": marks, "ticktext": [f"{bins[m]:.0f}" for m in marks], "title": {"text": "Hz"}}
    figure.update_layout(
        layout(title, 380, showlegend=False, xaxis={"title": {"text": "seconds"}}, yaxis={"domain": [0, 0.7], **ticks})
    )
    return figure.update_layout(
        yaxis2={"domain": [0.75, 1], "showgrid": False, "zeroline": False, "nticks": 3, "automargin": True}
    )


def rows_figure(values: Array, rate: float, title: str = "") -> go.Figure:
    """Return rows that are no waveform on a time axis: vectors (rows, n) as a heat map, pixels (columns, channels, height) as they
    are.

    Args:
        rate: rows a second.
        title: of the figure.
    """
    rows = np.asarray(values, np.float32)
    if rows.ndim == 3:
        pixels = np.clip(np.rint(rows.transpose(2, 0, 1) * 255), 0, 255).astype(np.uint8)
        pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
        return go.Figure(
            go.Image(z=pixels, dx=1 / rate, x0=0.5 / rate, hoverinfo="skip"),
            layout(
                title,
                320,
                xaxis={"title": {"text": "seconds"}},
                yaxis={"scaleanchor": False, "title": {"text": "pixel"}},
            ),
        )
    heat = go.Heatmap(
        z=rows.T,
        x=(np.arange(len(rows)) + 0.5) / rate,
        colorscale="Cividis",
        hovertemplate="%{x:.3f} s, value %{y}: %{z:.3f}<extra></extra>",
    )
    axes = {"xaxis": {"title": {"text": "seconds"}}, "yaxis": {"title": {"text": "value of the vector"}}}
    return go.Figure(heat, layout(title, 320, **axes))
