"""The report of an ablation suite: what was compared, under which contract, and what it says."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.ablation.clip_groups import clip_groups_section
from audio_cls.ablation.details import share_text
from audio_cls.metrics.base import plain_name
from audio_cls.metrics.classification import confusion_matrix, evaluate, most_confused, predict
from audio_cls.metrics.published import Published
from audio_cls.metrics.verdict import in_points
from audio_cls.report.arm_figures import VERDICTS, arm_curves, class_difference_figure, every_run, forest, one_of
from audio_cls.report.arms import ArmCurve, ArmSummary, Cell, ClassDifferences, Predictions, SuiteReport
from audio_cls.report.calibration import calibration_section
from audio_cls.report.figures import confusion_figure
from audio_cls.report.page import Html, Section, Table, findings, format_number, render_page
from audio_cls.report.ranking_figures import precision_recall_figure, roc_figure

__all__ = ["ArmCurve", "ArmSummary", "Cell", "ClassDifferences", "Predictions", "SuiteReport", "suite_report"]

SIGNS = {
    "helps": "▲",
    "hurts": "▼",
    "no difference": "■",
    "cannot tell": "○",
    "not judged": "×",
    "under way": "◇",
}  # as in the forest plot
CONFUSED = 8  # pairs of classes shown of each arm
STYLE = """<style>
.verdicts { list-style: none; padding: 0; margin: 12px 0; }
.verdicts li { border-left: 4px solid; padding: 2px 0 2px 10px; margin: 8px 0; overflow-wrap: anywhere; break-inside: avoid; }
.verdicts b { display: inline-block; min-width: 9em; }
.verdicts small { display: block; color: var(--dim); font-size: 13px; }
.captions { color: var(--dim); font-size: 13px; }
@media (max-width: 600px) { .verdicts b { min-width: 0; margin-right: 0.6em; } }
</style>"""


def suite_report(report: SuiteReport, path: str | Path | None = None, more: Sequence[Section] = ()) -> str:
    """Return the page of a suite as text; also written to `path` when one is given. The verdicts come first; all but
    them and the test split is folded. What the report leaves empty is left out; `more` sections stand at its end.

    Raises:
        ValueError: for a cell, curve or class difference of an arm that is not among `report.arms`.
    """
    _check(report)
    points = in_points(report.metric)
    sections = [*_published(report), *_others(report), *_behind(report, points), *_contract(report)]
    if report.cells:
        figure = every_run(report.cells, report.arms, report.metric)
        rows = [[c.arm, c.seed, c.fold_text, float(c.value)] for c in report.cells]
        table = Table(("arm", "seed", "fold", report.metric), rows, f"{len(rows)} runs", 4)
        reading = "Colour tells the fold, shape the seed; a bar is the mean of an arm."
        columns, by_fold = report.fold_table
        caption = f"{report.metric} by fold{', points' if points else ''}: means over the seeds"
        folds = [Table(columns, by_fold, caption, 2)] if len(by_fold) > 1 else []
        sections.append(Section("Runs", [reading, figure, *folds, table]))
    if report.class_differences is not None and len(report.class_differences.arms):
        sections.append(_classes(report, report.class_differences))
    sections += clip_groups_section(report)
    if report.curves:
        names = [arm.name for arm in report.arms]
        metrics = dict.fromkeys(curve.metric for curve in report.curves)
        reading = "Means over the runs of an arm; the band is the 95 % interval of the mean, of each arm by itself: the test above is paired and finer."
        sections.append(Section("Curves", [reading, *(arm_curves(report.curves, names, metric) for metric in metrics)]))
    if cost := _cost(report):
        sections.append(cost)
    sections += _predictions(report)
    folded = [replace(section, folded=True) for section in (*sections, *more)]
    return render_page(report.title, [_verdicts(report, points), *_test(report), *folded], path)


def _check(report: SuiteReport) -> None:
    known = [arm.name for arm in report.arms]
    used = [*(c.arm for c in report.cells), *(c.arm for c in report.curves), *report.predictions, *report.confusion]
    used += report.class_differences.arms if report.class_differences is not None else []
    if unknown := sorted(set(used) - set(known)):
        raise ValueError(f"{report.title!r}: no arm {unknown[0]!r} among {', '.join(known)}")


def _verdicts(report: SuiteReport, points: bool) -> Section:
    """Return what the suite says: what is wrong, a line for each arm, the forest plot, and the table of arms."""
    content: list[Any] = [*findings(report.findings), *(text for text in (report.question, report.state) if text)]
    lines = "".join(_line(arm) for arm in report.arms if not arm.reference)
    captions = html.escape(" ".join(f"{line[0].upper()}{line[1:]}." for line in report.captions))
    content.append(Html(f'{STYLE}<ul class="verdicts">{lines}</ul><p class="captions">{captions}</p>'))
    if any(not arm.reference and math.isfinite(arm.difference) for arm in report.arms):
        content.append(forest(report.arms, report.metric, report.direction, points))
    content.append(_arms(report, points))
    content += [*report.notes, *(f"Note: {_plain(value)}" for key, value in report.contract if key == "groups")]
    if not report.test_rows:
        content += report.openings or ["The test split has not been opened."]
    return Section("Verdicts", content)


def _arms(report: SuiteReport, points: bool) -> Table:
    """Return the table of arms: few columns, so that it fits a page; `_behind` has the others."""
    scale = 100.0 if points else 1.0
    rows: list[list[Any]] = []
    dim: list[int] = []
    for arm in report.arms:
        figures: list[Any] = [arm.mean * scale, None, None]
        if not arm.reference:
            interval = ""
            if math.isfinite(arm.difference_low):
                low, high = (
                    format_number(v * scale, 1 if points else 3) for v in (arm.difference_low, arm.difference_high)
                )
                interval = f"[{low}, {high}]"
            figures[1:] = arm.difference * scale, interval
        rows.append([arm.name, "reference" if arm.reference else arm.verdict, *figures])
        for item in report.published:
            if item.arm == arm.name and item.is_of(report.metric):
                dim.append(len(rows))
                rows.append([f"({arm.name}, published)", _measured(item), item.value * scale, None, None])
        if arm.collapsed:
            rows.append([f"({arm.name} without {arm.collapsed} collapsed)", "", arm.mean_without * scale, None, None])
    baseline = report.baseline.get(plain_name(report.metric))
    if baseline is not None:
        rows.append(["(baseline)", "learned nothing", baseline * scale, None, None])
    columns = ["arm", "verdict", f"mean{', points' if points else ''}", "difference", "interval"]
    caption = f"{report.metric} ({report.direction}) against {report.reference or 'the reference'}"
    return Table(columns, rows, caption, 2 if points else 3, dim=dim)


def _measured(item: Published) -> str:
    """Return the interval of a published figure and its clips, as far as they are known."""
    parts = [item.number.partition(" ")[2], f"{item.n_clips:,} clips" if item.n_clips else ""]
    return ", ".join(part for part in parts if part) or "published"


def _published(report: SuiteReport) -> list[Section]:
    if not report.published:
        return []
    means = {(arm.name, plain_name(report.metric)): arm.mean for arm in report.arms}
    means |= {(str(row[1]), plain_name(str(row[0]))): float(row[2]) for row in report.others}
    rows = [
        [item.name, plain_name(item.metric), item.value, *(item.interval or (None, None)), means.get((item.arm or "", plain_name(item.metric))),
         item.n_clips, item.on, item.chosen, item.source]
        for item in report.published
    ]  # fmt: skip
    columns = ["of", "metric", "published", "low", "high", "our mean", "clips", "measured on", "chosen", "source"]
    caption = "In no statistic and no verdict: other data, splits and choices. The interval is about their clips alone"
    return [Section("Published figures", [Table(columns, rows, caption, 3, dim=range(len(rows)))])]


def _others(report: SuiteReport) -> list[Section]:
    if not report.others:
        return []
    columns = ["metric", "arm", "mean", "sd", "baseline", "difference", "low", "high", "p (Holm)", "verdict"]
    caption = "In their own units; Holm over the arms of each metric by itself"
    return [Section("Further metrics", [Table(columns, report.others, caption, 3, ("p (Holm)",))])]


def _behind(report: SuiteReport, points: bool) -> list[Section]:
    """Return what is behind the verdicts: every figure of every arm, other tests, what it would take to settle them."""
    scale, digits = (100.0, 2) if points else (1.0, 3)
    unit = ", points" if points else ""
    rows, judged = [], []
    for arm in report.arms:
        changes = ", ".join(f"{k}={_plain(v)}" for k, v in arm.changes.items()) or ("the reference" if arm.reference else "nothing")  # fmt: skip
        figures = [v * scale for v in (arm.mean, arm.sd, arm.low, arm.high)]
        rows.append([arm.name, *figures, arm.n, arm.failed, changes])
        if not arm.reference:
            sides = [v * scale for v in (arm.difference, arm.difference_low, arm.difference_high)]
            shares = [_share(v) for v in (arm.better, arm.within, arm.worse)]
            wider = [v * scale for v in (arm.wider_low, arm.wider_high)]
            judged.append([arm.name, arm.verdict, arm.pairs or None, *sides, arm.p_holm, *shares, arm.equal_within * scale, *wider, arm.wider_p])  # fmt: skip
    columns = ["arm", f"mean{unit}", "sd", "low", "high", "runs", "failed", "what it changes"]
    arms = Table(columns, rows, f"{report.metric}; 95 % intervals of the means, each by itself", digits)
    content: list[Any] = [arms]
    if judged:
        margin = "the margin" if math.isnan(report.margin) else format_number(report.margin * scale, digits)
        columns = ["arm", "verdict", "pairs", f"difference{unit}", "low", "high", "p (Holm)", f"better by > {margin}", "within", "worse", "equal within", "low ", "high ", "p (Holm) "]  # fmt: skip
        caption = (
            "Against the reference. Probabilities as if nothing had been known before. The last three columns: the wider test, "
            "for new training sets of this source; empty where the verdict is by it"
        )
        content.append(Table(columns, judged, caption, digits, ("p (Holm)", "p (Holm) ")))
    said = "".join(_line(arm, more=True) for arm in report.arms if arm.more)
    return [Section("Arms in full", [*content, *([Html(f'<ul class="verdicts">{said}</ul>')] if said else [])])]


def _share(value: float) -> str:
    return "" if math.isnan(value) else share_text(value)


def _line(arm: ArmSummary, more: bool = False) -> str:
    """Return an arm's verdict as a list item with what belongs beside it, or, of `more`, all that is behind it."""
    colour = VERDICTS.get(arm.verdict, ("#bbbbbb", ""))[0]
    said = html.escape(arm.text or ("no pair of runs yet" if not arm.verdict else arm.verdict))
    below = "".join(f"<small>{html.escape(line)}</small>" for line in (arm.more if more else arm.beside))
    said = below if more else said + below
    sign = SIGNS.get(arm.verdict, "·")
    return f'<li style="border-color:{colour}"><b>{sign} {html.escape(arm.name)}</b> {said}</li>'


def _test(report: SuiteReport) -> list[Section]:
    """Return what the test split showed, under its right name; nothing while it is closed."""
    if not report.test_rows:
        return []
    columns = ("arm", "metric", report.test_kind, "low", "high", "baseline", "difference", "low ", "high ", "p (Holm)")
    caption = "Intervals of figures over clips, of differences paired by seed and fold; in the metric's own units"
    heading = "Test split" if report.test_kind == "test" else "Cross-validation on held-out clips"
    content: list[Any] = [*report.openings, Table(columns, report.test_rows, caption, 3, ("p (Holm)",))]
    names, rows = report.nested_table
    if rows:
        content.append(
            Table(names, rows, "Nested choice: the arm chosen by each fold's validation clips, means over seeds", 3)
        )
    return [Section(heading, content)]


def _contract(report: SuiteReport) -> list[Section]:
    rows = [(key, _plain(value)) for key, value in report.contract]
    caption = "Checked before the first run and again for this page"
    return [Section("Contract", [Table(("what", "the same in all runs"), rows, caption)])] if rows else []


def _classes(report: SuiteReport, differences: ClassDifferences) -> Section:
    points = in_points(differences.measure)
    scale = 100.0 if points else 1.0
    mean, low, high = (np.asarray(v, float) * scale for v in (differences.mean, differences.low, differences.high))
    rows = [
        [name, arm, float(mean[k, a]), float(low[k, a]), float(high[k, a]), bool(low[k, a] > 0 or high[k, a] < 0)]
        for k, name in enumerate(differences.classes)
        for a, arm in enumerate(differences.arms)
    ]
    unit = ", points" if points else ""
    columns = ("class", "arm", f"difference in {differences.measure}{unit}", "low", "high", "clear of 0")
    reading = (
        f"{len(rows)} intervals of 95 % stand here, each by itself: about {max(1, round(len(rows) / 20))} would be clear of 0 "
        "(starred) though nothing differed."
    )
    return Section(
        "Classes",
        [reading, class_difference_figure(differences, points), Table(columns, rows, "By class", 2)],
    )


def _cost(report: SuiteReport) -> Section | None:
    arms = [a for a in report.arms if math.isfinite(a.seconds) or math.isfinite(a.samples_per_second) or a.parameters]
    if not arms:
        return None
    base = next((a.seconds for a in arms if a.reference), math.nan)
    rows = [
        [a.name, a.seconds, a.seconds / base if base > 0 else math.nan, a.samples_per_second, a.parameters]
        for a in arms
    ]
    columns = ("arm", "seconds a run", "times the reference", "clips a second", "parameters")
    return Section("Cost", [Table(columns, rows, "Of training, mean over the runs", 2)])


def _predictions(report: SuiteReport) -> list[Section]:
    """Return confusion, ROC, precision and recall, calibration, thresholds: by arm, the reference first."""
    arms = sorted((a for a in report.arms), key=lambda a: not a.reference)
    names = [a.name for a in arms if a.name in report.predictions]
    whole = [n for n in names if not np.isnan(np.asarray(report.predictions[n].scores)).any()]
    sections = []
    counts: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for arm in arms:
        if arm.name in report.confusion:
            matrix = np.asarray(report.confusion[arm.name])
            counts[arm.name] = matrix, matrix.sum(axis=1)
        elif arm.name in whole:
            p = report.predictions[arm.name]
            called = predict(np.asarray(p.scores), report.task, p.thresholds)
            counts[arm.name] = confusion_matrix(np.asarray(p.targets), called), np.asarray(p.targets).sum(axis=0)
    if counts:
        sections.append(_confusion(report, counts))
    if whole:
        pairs = {
            n: (np.asarray(report.predictions[n].scores), np.asarray(report.predictions[n].targets)) for n in whole
        }
        roc = one_of({n: roc_figure(s, t, report.classes) for n, (s, t) in pairs.items()})
        recall = one_of({n: precision_recall_figure(s, t, report.classes) for n, (s, t) in pairs.items()})
        results = {n: evaluate(s, t, report.task).per_class for n, (s, t) in pairs.items()}
        sections += [
            Section("ROC", [roc, _by_class(report, results, "auc", "AUC")]),
            Section("Precision and recall", [recall, _by_class(report, results, "ap", "AP")]),
            calibration_section(pairs, report.task),
        ]
    if report.task == "multilabel" and names:
        sections.append(_thresholds(report, names))
    return sections


def _confusion(report: SuiteReport, counts: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> Section:
    figures = {name: confusion_figure(matrix, report.classes, support) for name, (matrix, support) in counts.items()}
    rows = [
        [name, c.true, c.predicted, c.count, c.rate]
        for name, (matrix, support) in counts.items()
        for c in most_confused(matrix, report.classes, CONFUSED, support=support)
    ]
    table = Table(("arm", "true", "called", "clips", "share of the class"), rows, "Most confused")
    return Section("Confusion", ["Runs of an arm together: a clip counts once for each seed.", one_of(figures), table])


def _by_class(report: SuiteReport, results: dict[str, dict[str, NDArray[Any]]], key: str, label: str) -> Table:
    rows = [[name, *(float(found[key][k]) for found in results.values())] for k, name in enumerate(report.classes)]
    return Table(("class", *results), rows, f"{label} by class and arm")


def _thresholds(report: SuiteReport, names: Sequence[str]) -> Section:
    columns = []
    for name in names:
        given = report.predictions[name].thresholds
        limits = np.full(len(report.classes), 0.5) if given is None else np.asarray(given, float)
        columns.append(limits.mean(axis=0) if limits.ndim == 2 else np.broadcast_to(limits, (len(report.classes),)))
    rows = [[label, *(float(column[k]) for column in columns)] for k, label in enumerate(report.classes)]
    reading = (
        "A label is called at this probability or above: the mean over an arm's runs and over the parts of the validation clips, each "
        "of which is called by thresholds tuned on the others. The confusion above is of these decisions; figures of decisions "
        "elsewhere are at 0.5."
    )
    return Section("Thresholds", [reading, Table(("class", *names), rows, "By class and arm")])


def _plain(value: Any) -> str:
    return format_number(value, 4) if isinstance(value, float) else "none" if value is None else str(value)
