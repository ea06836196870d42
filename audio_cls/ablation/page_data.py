"""From a suite's results to the report's plain data: arms, runs, curves, classes, pooled predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.ablation.declaration import Cell
from audio_cls.ablation.page import ArmCurve, ArmSummary, ClassDifferences, SuiteReport
from audio_cls.ablation.page import Cell as ReportCell
from audio_cls.ablation.page import Predictions as ReportPredictions
from audio_cls.ablation.predictions import pooled_by_seed
from audio_cls.ablation.results import ArmResult, SuiteResult, fold_rows
from audio_cls.ablation.test_split import TestResult
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.base import in_points, number_text
from audio_cls.metrics.bootstrap import Interval
from audio_cls.metrics.classification import check_metric, fit_thresholds
from audio_cls.metrics.paired import compare
from audio_cls.metrics.predictions import Predictions
from audio_cls.runs.scores import listening_audit

if TYPE_CHECKING:
    from audio_cls.report.page import Section
    from audio_cls.tracking import Tracker

__all__ = ["audit_of_best", "build_report", "more_lines"]

SEEDS_SHOWN = 3  # of pooled predictions: ranking curves of more say no more and make the page heavy


def build_report(
    result: SuiteResult,
    tracker: Tracker,
    corpus: Corpus,
    scores: Mapping[str, Mapping[Cell, Predictions]],
    intervals: Mapping[str, Interval],
    test: TestResult | None = None,
    others: Sequence[SuiteResult] = (),
    history: str = "",
) -> SuiteReport:
    """Return all that the page of a suite shows; see `report.suite_data`. `others` is the suite by its further
    metrics, `history` how often its test clips have been opened, for whichever run.
    """
    ablation = result.ablation
    return SuiteReport(
        title=f"Ablation {ablation.name}",
        metric=result.metric,
        direction=check_metric(result.metric),
        arms=[_summary(arm, result, intervals.get(arm.name)) for arm in result.arms],
        classes=corpus.classes,
        task=corpus.task,
        state=result.state,
        question=ablation.question,
        contract=result.terms,
        cells=[
            ReportCell(arm.name, seed, fold if ablation.fold_key else None, value, result.plan.fold_names.get(fold, ""))
            for arm in result.arms
            for (seed, fold), value in sorted(arm.values.items())
            if isfinite(value)
        ],
        curves=_curves(result, tracker),
        class_differences=_class_differences(result, scores, corpus),
        predictions=_pooled(scores, corpus),
        notes=[*result.adopted, *(f"{words}: {reason}" for arm in result.arms for words, reason in arm.failed)],
        openings=[*(test.lines() if test else ()), *result.openings, *([history] if history else ())],
        baseline=result.baseline,
        findings=result.findings,
        others=[row for other in others for row in _rows_of(other)],
        test_rows=test.rows() if test else (),
        test_kind=test.kind if test else "test",
        nested_table=test.nested.rows() if test and test.nested else ((), ()),
        fold_table=fold_rows(result),
    )


def audit_of_best(
    result: SuiteResult, scores: Mapping[str, Mapping[Cell, Predictions]], corpus: Corpus
) -> list[Section]:
    """Return the listening audit of the arm with the best mean: its first seed that has run all folds, each clip by
    the run that held it out. Empty while there is none.
    """
    sign = 1 if check_metric(result.metric) == "maximize" else -1
    known = [arm for arm in result.arms if isfinite(arm.mean.mean) and scores.get(arm.name)]
    for arm in sorted(known, key=lambda a: -sign * a.mean.mean):
        for seed, pooled in pooled_by_seed(scores[arm.name], result.plan.folds, corpus).items():
            which = f"By the arm {arm.name!r}, the best so far by {result.metric}, seed {seed}: each clip by the run that held it out."
            return listening_audit(pooled, corpus, which)
    return []


def _rows_of(result: SuiteResult) -> list[list[Any]]:
    rows: list[list[Any]] = []
    base = result.baseline.get(result.metric.rpartition("/")[2])
    for arm in result.arms:
        c, verdict = arm.comparison, arm.verdict
        rest: list[Any] = [None, None, None, None, "reference"]
        if c is not None and verdict is not None:
            rest = [c.mean, c.low, c.high, verdict.p, verdict.word]
        rows.append([result.metric, arm.name, arm.mean.mean, arm.mean.sd, base, *rest])
    return rows


def more_lines(arm: ArmResult, interval: Interval | None, points: bool) -> list[str]:
    """Return what is beside a verdict: effect size, the signed-rank test, the bootstrap over clips, hints of power."""
    c, verdict = arm.comparison, arm.verdict
    if c is None or verdict is None or not c.n:
        return []

    def amount(value: float) -> str:
        return number_text(value, points, signed=True)

    lines = [f"better in {c.wins}, worse in {c.losses}, equal in {c.ties} of {c.n} pairs"]
    if isfinite(c.hedges_g):
        lines.append(
            f"effect size g = {c.hedges_g:+.2f}; Wilcoxon p = {c.wilcoxon_p:.2g} (as if runs were independent)"
        )
    if interval is not None and isfinite(interval.low):
        lines.append(
            f"over clips (bootstrap, {interval.n_units} clips or groups): {amount(interval.estimate)} "
            f"[{amount(interval.low)}, {amount(interval.high)}]"
        )
    hints: dict[str, list[str]] = {}
    for hint in verdict.more:
        about = "at least " if hint.lower_bound else "about "
        words = (
            "out of reach with more seeds"
            if hint.pairs is None
            else f"{about if hint.pairs else ''}{hint.pairs} more pairs"
        )
        hints.setdefault(words, []).append(amount(hint.difference).lstrip("+"))
    if hints:
        unit = " points" if points else ""
        parts = [f"of {' or '.join(differences)}{unit}: {words}" for words, differences in hints.items()]
        lines.append(f"to settle a difference {'; '.join(parts)}")
    lines.append(c.method)
    return lines


def _summary(arm: ArmResult, result: SuiteResult, interval: Interval | None) -> ArmSummary:
    c, verdict = arm.comparison, arm.verdict
    figures: dict[str, Any] = {}
    if c is not None and verdict is not None:
        figures = {
            "difference": c.mean,
            "difference_low": c.low,
            "difference_high": c.high,
            "pairs": c.n,
            "p_holm": verdict.p,
            "verdict": verdict.word,
            "text": verdict.text,
        }
    return ArmSummary(
        name=arm.name,
        changes=dict(result.ablation.arms[arm.name]),
        reference=c is None,
        n=sum(isfinite(v) for v in arm.values.values()),
        mean=arm.mean.mean,
        sd=arm.mean.sd,
        low=arm.mean.low,
        high=arm.mean.high,
        more=more_lines(arm, interval, in_points(result.metric)),
        seconds=arm.seconds,
        samples_per_second=arm.samples_per_second,
        parameters=int(arm.parameters) if isfinite(arm.parameters) else None,
        failed=len(arm.failed),
        **figures,
    )


def _curves(result: SuiteResult, tracker: Tracker) -> list[ArmCurve]:
    """Return means over an arm's complete runs, epoch by epoch, with the interval of the mean as if runs were
    independent.
    """
    out = []
    for metric in dict.fromkeys([result.metric, "val/loss", "train/loss"]):
        for arm in result.ablation.arms:
            rows = []
            for record in result.records:
                if record.arm == arm and record.state == "COMPLETE" and record.run_id:
                    try:
                        rows.append([value for _, value in tracker.curve(record.run_id, metric)])
                    except UserError:
                        continue
            if not rows:
                continue
            length = min(map(len, rows))
            values = np.array([row[:length] for row in rows])
            mean = values.mean(axis=0)
            reach = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.zeros(length)
            out.append(
                ArmCurve(
                    arm,
                    metric,
                    list(range(1, length + 1)),
                    mean.tolist(),
                    (mean - reach).tolist(),
                    (mean + reach).tolist(),
                )
            )
    return out


def _class_differences(
    result: SuiteResult, scores: Mapping[str, Mapping[Cell, Predictions]], corpus: Corpus
) -> ClassDifferences | None:
    """By class, each arm's F1 less the reference's, paired by (seed, fold) like the verdicts, without a correction over classes.
    Of several labels a clip the average precision: it needs no threshold, which arms such as class weights move."""
    reference = result.ablation.reference
    arms = [a for a in result.ablation.arms if a != reference and scores.get(a)]
    if not arms or not scores.get(reference):
        return None

    key, measure = ("ap", "AP") if corpus.task == "multilabel" else ("f1", "F1")

    def by_class(arm: str) -> dict[Cell, NDArray[Any]]:
        return {cell: s.evaluation.per_class[key] for cell, s in scores[arm].items()}

    base = by_class(reference)
    figures = np.full((3, len(corpus.classes), len(arms)), np.nan)
    for column, arm in enumerate(arms):
        mine = by_class(arm)
        for k in range(len(corpus.classes)):
            a, b = ({cell: float(f1[k]) for cell, f1 in side.items() if np.isfinite(f1[k])} for side in (mine, base))
            c = compare(a, b, test_to_train=result.plan.test_to_train)
            figures[:, k, column] = c.mean, c.low, c.high
    return ClassDifferences(corpus.classes, arms, figures[0], figures[1], figures[2], measure)


def _pooled(scores: Mapping[str, Mapping[Cell, Predictions]], corpus: Corpus) -> dict[str, ReportPredictions]:
    """Return an arm's validation predictions, run below run; of several labels each run's with the thresholds fitted
    on its clips.
    """
    out = {}
    for arm, cells in scores.items():
        seeds = sorted({seed for seed, _ in cells})[:SEEDS_SHOWN]
        parts = [s for (seed, _), s in sorted(cells.items()) if seed in seeds]
        if parts:
            thresholds = None
            if corpus.task == "multilabel":
                fitted = [np.tile(fit_thresholds(p.scores, p.targets), (len(p), 1)) for p in parts]
                thresholds = np.concatenate(fitted)
            out[arm] = ReportPredictions(
                np.concatenate([p.scores for p in parts]), np.concatenate([p.targets for p in parts]), thresholds
            )
    return out
