"""The report of a study: what was searched, how it stands, the best, what mattered, and what pruning did."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.metrics.base import plain_name
from audio_cls.metrics.published import Published, published_lines
from audio_cls.queue.status import BEST_EPOCH
from audio_cls.report.page import Cards, Html, Section, Table, findings, render_page
from audio_cls.report.search_figures import house_style

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["StudyReport", "TrialRow", "pruning_cost", "study_report"]


@dataclass(frozen=True)
class TrialRow:
    """One configuration by its latest attempt. `state` is COMPLETE, PRUNED, FAILED, RUNNING or WAITING; `run` its MLflow id;
    `state_text` the state as the table shows it; `extended` when it was revived to a larger budget than the others had: its value
    is not compared with theirs; `collapsed` why the weights that its value is of have collapsed, "" if they have not."""

    number: int
    state: str
    value: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 0
    seconds: float | None = None
    attempts: int = 1
    revived: bool = False
    reason: str = ""
    run: str = ""
    extended: bool = False
    collapsed: str = ""
    state_text: str = ""


@dataclass(frozen=True)
class StudyReport:
    """All that the page of a study is made from.

    title: of the page.
    metric, direction: what is searched for.
    rows: leaderboard, the best first; configurations that are pruned, failed or unfinished after the complete ones.
    facts: sampler, pruner, data digest, ... in a table.
    space: the source of the search space, as text.
    figures: Optuna's, by name (see `audio_cls.study.plots`).
    total: configurations asked for, when that is known.
    attempts: trials in Optuna, each attempt counted.
    states: number of every trial (each attempt) -> its state in Optuna's words, for the figures.
    links: lines of text on where to find the runs.
    baseline: the metric of a model that learned nothing, on the best trial's clips; None if it is not known.
    last: the best trial's figure at its last epoch; None if it is not known.
    findings: what is wrong with the best trial's predictions, in sentences.
    published: figures of others, shown greyed below ours.
    """

    title: str
    metric: str
    direction: str
    rows: Sequence[TrialRow]
    facts: Mapping[str, Any] = field(default_factory=dict)
    space: str = ""
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    total: int | None = None
    attempts: int = 0
    states: Mapping[int, str] = field(default_factory=dict)
    links: Sequence[str] = ()
    baseline: float | None = None
    last: float | None = None
    findings: Sequence[str] = ()
    published: Sequence[Published] = ()


def study_report(report: StudyReport, path: str | Path | None = None, more: Sequence[Section] = ()) -> str:
    """Return the page of a study as text; also written to `path` when one is given. `more` sections stand at its end."""
    maximize = report.direction == "maximize"
    best = next((row for row in report.rows if row.state == "COMPLETE"), None)
    states = report.states or {row.number: {"FAILED": "FAIL"}.get(row.state, row.state) for row in report.rows}
    figures = {
        name: house_style(name, figure, states, None if best is None else best.number, maximize)
        for name, figure in report.figures.items()
    }
    sections = [Section("Result", _result(report, best)), Section("Leaderboard", [_leaderboard(report), *published_lines(report.published), *report.links])]  # fmt: skip
    matters = [figure for name, figure in figures.items() if name.split()[0] in ("importances", "parallel", "slice")]
    if matters:
        sections.append(Section("What matters", [_caution(report), *matters]))
    for heading, names in (("History", ("history", "intermediate")), ("Timeline", ("timeline",))):
        if drawn := [figures[name] for name in names if name in figures]:
            sections.append(Section(heading, drawn))
    sections.append(Section("Pruning and failures", _pruning_and_failures(report, maximize)))
    declared: list[Any] = []
    if report.facts:
        declared.append(Table(("what", "value"), [(k, str(v)) for k, v in report.facts.items()]))
    if report.space:
        declared += ["The space that is searched:", Html(f'<div class="scroll"><pre style="margin:8px">{html.escape(report.space)}</pre></div>')]  # fmt: skip
    if declared:
        sections.append(Section("Declaration", declared))
    return render_page(report.title, [*sections, *more], path)


def pruning_cost(rows: Sequence[TrialRow], maximize: bool = True) -> str:
    """Return what pruning would have lost, as far as revived configurations tell; in words.

    A revived configuration was pruned and then trained to its full budget, so its value is what pruning threw away. Those
    that were revived to a larger budget say nothing of it.
    """
    sign = 1 if maximize else -1
    extended = sum(r.extended for r in rows)
    known = [
        (sign * r.value, r)
        for r in rows
        if r.state == "COMPLETE" and r.value is not None and not r.extended and not r.collapsed
    ]
    revived = [pair for pair in known if pair[1].revived]
    kept = [pair for pair in known if not pair[1].revived]
    pruned = sum(r.state == "PRUNED" for r in rows)
    apart = f" {extended} were revived to a larger budget and are not compared." if extended else ""
    if not revived:
        if not pruned:
            return f"Nothing was left pruned.{apart}" if extended else "Nothing was pruned."
        return (
            f"{pruned} of {len(rows)} configurations were pruned; what that lost is not known. "
            f"audio-cls study revive STUDY --top 3 trains the best of them to the end, and tells.{apart}"
        )
    top = max(revived, key=lambda pair: pair[0])
    rank = 1 + sum(value > top[0] for value, _ in known)
    several = len(revived) > 1
    count = f"{len(revived)} pruned configurations were" if several else "1 pruned configuration was"
    which = "The best of them" if several else "It"
    head = (
        f"{count} revived and trained to the end. {which} (trial {top[1].number}) reached {top[1].value:.4g}, "
        f"place {rank} of {len(known)}."
    )
    if not kept:
        return head + apart
    best = max(kept, key=lambda pair: pair[0])
    if top[0] > best[0]:
        return (
            f"{head} Pruning would have lost {top[0] - best[0]:.4g}: without it the best is {best[1].value:.4g}.{apart}"
        )
    return f"{head} Pruning would have lost nothing of the best value, {best[1].value:.4g}.{apart}"


def _result(report: StudyReport, best: TrialRow | None) -> list[Any]:
    states = Counter(row.state for row in report.rows)
    done = states["COMPLETE"] + states["PRUNED"] + states["FAILED"]
    cards: dict[str, Any] = {} if best is None else {f"best {report.metric}": best.value}
    cards["finished"] = f"{done}" if report.total is None else f"{done} of {report.total}"
    for state in ("COMPLETE", "PRUNED", "FAILED", "RUNNING", "WAITING"):
        if states[state] or state in ("COMPLETE", "PRUNED", "FAILED"):
            cards[state.lower()] = states[state]
    revived = sum(row.revived for row in report.rows)
    if revived:
        cards["revived"] = revived
    if collapsed := sum(bool(row.collapsed) for row in report.rows):
        cards["collapsed"] = collapsed
    seconds = sum(row.seconds or 0.0 for row in report.rows)
    if seconds:
        cards["worker time"] = f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.1f} min"
    best_card = f"best {report.metric}"
    beside = {best_card: report.baseline} if report.baseline is not None else {}
    content: list[Any] = [*findings(report.findings), Cards(cards, best_card, beside)]
    if best is None:
        return [*content, "No configuration is complete yet."]
    content.append(
        f"A trial's {report.metric} is of its {BEST_EPOCH}."
        + (f" At its last epoch the best trial has {_value(report.last)}." if report.last is not None else "")
    )
    content.append(
        Table(
            ("parameter", "value"),
            [(key, _value(value)) for key, value in best.params.items()],
            f"The best of {states['COMPLETE']} complete configurations: trial {best.number}",
        )
    )
    if states["COMPLETE"] > 1:
        content.append(
            "The best of many is partly the luckiest of many: trained anew on other seeds and folds it will most "
            "likely come out a little worse."
        )
    return content


def _leaderboard(report: StudyReport) -> Table:
    names = list(dict.fromkeys(name for row in report.rows for name in row.params))
    many = any(row.attempts > 1 for row in report.rows)
    columns = ["trial", "state", report.metric, "epochs", "seconds", *(["attempts"] if many else []), *names, "run"]
    rows = [
        [
            row.number,
            row.state_text or row.state.lower(),
            row.value,
            row.epochs,
            None if row.seconds is None else round(row.seconds),
            *([row.attempts] if many else []),
            *(row.params.get(name) for name in names),
            row.run[:8],
        ]
        for row in report.rows
    ]
    ours = len(rows)
    for item in report.published:
        if plain_name(item.metric) == plain_name(report.metric):
            rows.append([None, f"published: {item.name}", item.value, *([None] * (len(columns) - 3))])
    return Table(
        columns,
        rows,
        f"{ours} configurations; {report.metric} is of the {BEST_EPOCH}. Click a heading to sort",
        4,
        names,
        range(ours, len(rows)),
    )


def _caution(report: StudyReport) -> str:
    complete = sum(row.state == "COMPLETE" for row in report.rows)
    if "importances" not in report.figures:
        return f"{complete} complete trials are too few, or too alike, to say what matters."
    return (
        f"From {complete} complete trials that the sampler chose, not from a balanced design: a hint, no test. Only parameters "
        "that every complete trial has are ranked and stand in the parallel coordinates."
    )


def _pruning_and_failures(report: StudyReport, maximize: bool) -> list[Any]:
    content: list[Any] = [pruning_cost(report.rows, maximize)]
    if report.attempts > len(report.rows):
        content.append(f"{report.attempts} attempts were made at {len(report.rows)} configurations.")
    ended = [row for row in report.rows if row.state in ("PRUNED", "FAILED")]
    if ended:
        rows = [(row.number, row.state.lower(), row.epochs, row.value, row.reason) for row in ended]
        content.append(Table(("trial", "state", "epochs", report.metric, "reason"), rows, "Ended early", 4))
    if collapsed := [(row.number, row.epochs, row.value, row.collapsed) for row in report.rows if row.collapsed]:
        caption = "Collapsed: their values are numbers that say nothing; the best is one of them only if all are"
        content.append(Table(("trial", "epochs", report.metric, "why"), collapsed, caption, 4))
    return content


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
