"""Optuna's figures in the look of our own: palette, shapes beside colours, legends that fit a phone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from audio_cls.report.figures import PALETTE, layout

__all__ = ["house_style"]

STATES = {  # state -> colour, pattern of its bars, dash of its lines
    "COMPLETE": (PALETTE[0], "", "solid"),
    "PRUNED": (PALETTE[4], "/", "dash"),
    "FAIL": (PALETTE[1], "x", "dot"),
    "RUNNING": (PALETTE[2], ".", "solid"),
    "WAITING": ("#bbbbbb", "", "dot"),
}
TITLES = {
    "history": "Complete trials, and the best so far",
    "importances": "Importance of the parameters (PED-ANOVA)",
    "slice": "Over each parameter; darker is later",
    "parallel": "Parallel coordinates; darker is better",
    "intermediate": "Values over the epochs",
    "timeline": "Timeline",
}
HEIGHTS = {"slice": 360, "parallel": 440, "intermediate": 440}
LIGHT, DARK = (222, 196, 160), (8, 48, 107)
BLUES = ((0.0, "#b5d4ea"), (1.0, "#08306b"))


def house_style(
    name: str, figure: go.Figure, states: Mapping[int, str], best: int | None = None, maximize: bool = True
) -> go.Figure:
    """Return a copy of one of Optuna's figures, restyled.

    Args:
        name: history, importances, slice N, parallel, intermediate or timeline.
        figure: as Optuna draws it.
        states: number of a trial -> its state in Optuna's words (COMPLETE, PRUNED, FAIL, ...).
        best: the number of the best trial, which stands out.
        maximize: whether more is better.
    """
    kind = name.split()[0]
    drawn = figure.to_dict()
    for index, trace in enumerate(drawn["data"]):
        _TRACES.get(kind, _keep)(trace, index, states, best, maximize)
    more: dict[str, Any] = dict(drawn["layout"])
    more.pop("template", None)
    more.pop("title", None)
    if kind == "timeline":
        more["yaxis"] = {**more.get("yaxis", {}), "dtick": max(1, len(states) // 20)}
        more["xaxis"] = {**more.get("xaxis", {}), "title": {"text": ""}, "nticks": 6}
        drawn["data"] = [t for t in drawn["data"] if t.get("y") is not None and len(t["y"])]
    if kind == "intermediate":
        more["xaxis"], more["yaxis"] = {"title": {"text": "epoch"}}, {"title": {"text": "value"}}
        more["showlegend"] = True
    if kind == "importances":
        more["yaxis"] = {"ticks": "", "showgrid": False}
        more["xaxis"] = {"title": {"text": "share"}, "range": [0, 1.12]}
    height = HEIGHTS.get(kind, 400)
    if kind == "importances":
        height = 140 + 30 * len(drawn["data"][0]["y"])
    if kind == "timeline":
        height = min(900, 180 + 14 * len(states))
    base = layout(TITLES.get(kind, name), height)
    plain = base["xaxis"]  # of both directions
    for key, value in more.items():
        if key.startswith(("xaxis", "yaxis")):  # the further axes of slices as well
            base[key] = {**plain, **value}
            if kind == "parallel":
                base[key].update(gridcolor="rgba(0,0,0,0)", ticks="")
            if kind == "slice" and "categoryarray" in value:
                base[key]["categoryarray"] = [_unquoted(v) for v in value["categoryarray"]]
            if kind == "slice" and value.get("type") == "log":
                base[key].update(dtick="D2" if _decades(drawn["data"], key) < 2 else 1)
        else:
            base[key] = value
    for note in base.get("annotations", ()):
        note["bgcolor"] = "rgba(255,255,255,0.75)"
    return go.Figure(drawn["data"], base)


def _unquoted(value: Any) -> Any:
    """Optuna shows the text of a choice in quotes."""
    return value[1:-1] if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == "'" else value


def _decades(traces: Sequence[Mapping[str, Any]], axis: str) -> float:
    values = [float(v) for t in traces if t.get("xaxis", "x") == axis.replace("axis", "") for v in t["x"]]
    return math.log10(max(values) / min(values)) if values else 0.0


def _keep(trace: dict[str, Any], *_: Any) -> None:
    pass


def _history(trace: dict[str, Any], index: int, *_: Any) -> None:
    if trace.get("mode") == "markers":
        colour = "#999999" if "Infeasible" in trace.get("name", "") else PALETTE[0]
        trace["marker"] = {"color": colour, "size": 8}
    else:
        trace["name"] = "best so far"
        trace["line"] = {"color": PALETTE[1], "width": 2, "shape": "hv"}


def _importances(trace: dict[str, Any], *_: Any) -> None:
    trace["marker"] = {"color": PALETTE[0]}
    trace["hovertemplate"] = "%{y}: %{x:.3f}<extra></extra>"


def _slice(trace: dict[str, Any], *_: Any) -> None:
    colours = trace.get("marker", {}).get("color")
    if isinstance(colours, str) or colours is None:
        return
    line = {"color": "#444444", "width": 0.5}
    trace["marker"] = {
        "color": colours,
        "colorscale": [list(s) for s in BLUES],
        "showscale": False,
        "size": 9,
        "line": line,
    }
    trace["x"] = [_unquoted(v) for v in trace["x"]]
    trace["customdata"] = colours
    trace["hovertemplate"] = "trial %{customdata}<br>%{x}: %{y:.4f}<extra></extra>"


def _parallel(trace: dict[str, Any], index: int, states: Mapping[int, str], best: int | None, maximize: bool) -> None:
    if trace.get("mode") != "lines" or not trace.get("customdata"):
        if "marker" in trace:  # carries nothing but the colour bar, of Optuna's colours
            trace["marker"]["showscale"] = False
        return
    place = float(trace["y"][0])
    share = place if maximize else 1 - place
    mixed = [round(a + (b - a) * share) for a, b in zip(LIGHT, DARK)]
    trace["line"] = {"color": f"rgb({mixed[0]},{mixed[1]},{mixed[2]})", "width": 1.2 + 1.6 * share}
    trace["opacity"] = 0.85


def _intermediate(trace: dict[str, Any], index: int, states: Mapping[int, str], best: int | None, _: bool) -> None:
    digits = "".join(c for c in str(trace.get("name", "")) if c.isdigit())
    number = int(digits) if digits else index
    state = states.get(number, "COMPLETE")
    colour, _pattern, dash = STATES.get(state, STATES["WAITING"])
    width = 1.2
    label = state.lower()
    if number == best:
        colour, width, label, dash = "#000000", 3, "best", "solid"
    trace["name"] = label
    trace["legendgroup"] = label
    first = min((n for n, s in states.items() if s == state and n != best), default=number)
    trace["showlegend"] = number in (best, first)
    trace["x"] = [step + 1 for step in trace.get("x", ())]  # Optuna's steps count from 0, epochs from 1
    trace["line"] = {"color": colour, "width": width, "dash": dash}
    trace["marker"] = {"size": 4, "maxdisplayed": 10}
    trace["hovertemplate"] = f"trial {number} ({label}), epoch %{{x}}: %{{y:.4f}}<extra></extra>"


def _timeline(trace: dict[str, Any], *_: Any) -> None:
    # Optuna's hover text is the whole trial, with all its attributes and the worker's host name
    colour, pattern, _dash = STATES.get(str(trace.get("name", "")), STATES["WAITING"])
    trace["marker"] = {
        "color": colour,
        "pattern": {"shape": pattern, "fgcolor": "white", "size": 5, "fillmode": "overlay"},
    }
    trace["name"] = str(trace.get("name", "")).lower()
    trace["text"] = None
    trace["customdata"] = [float(v) / 1000 for v in trace.get("x", ())]
    trace["hovertemplate"] = f"trial %{{y}}, {trace['name']}: %{{customdata:.1f}} s from %{{base}}<extra></extra>"


_TRACES = {
    "history": _history,
    "importances": _importances,
    "slice": _slice,
    "parallel": _parallel,
    "intermediate": _intermediate,
    "timeline": _timeline,
}
