"""From a suite's results to the report's plain data: arms, runs, curves, classes, pooled predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.ablation.clip_groups import arms_by_column
from audio_cls.ablation.declaration import Cell
from audio_cls.ablation.details import all_details, captions, main_details
from audio_cls.ablation.page import ArmCurve, ArmSummary, ClassDifferences, SuiteReport
from audio_cls.ablation.page import Cell as ReportCell
from audio_cls.ablation.page import Predictions as ReportPredictions
from audio_cls.ablation.predictions import pooled_by_seed
from audio_cls.ablation.results import ArmResult, SuiteResult, fold_rows
from audio_cls.ablation.test_split import TestResult
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.base import in_points, plain_name
from audio_cls.metrics.classification import check_metric
from audio_cls.metrics.paired import mean_interval
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.verdict import margin_or_default
from audio_cls.runs.scores import listening_audit

if TYPE_CHECKING:
    from audio_cls.report.page import Section
    from audio_cls.tracking import Tracker

__all__ = ["audit_of_best", "build_report"]

SEEDS_SHOWN = 3  # of pooled predictions: ranking curves of more say no more and make the page heavy


def build_report(
    result: SuiteResult,
    tracker: Tracker,
    corpus: Corpus,
    scores: Mapping[str, Mapping[Cell, Predictions]],
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
        arms=[_summary(arm, result) for arm in result.arms],
        classes=corpus.classes,
        task=corpus.task,
        state=result.state,
        captions=captions(result),
        margin=margin_or_default(in_points(result.metric), result.ablation.margin) or math.nan,
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
        by_column=arms_by_column(scores, ablation.reference, result.plan.folds, corpus),
        notes=[*result.adopted, *(f"{words}: {reason}" for arm in result.arms for words, reason in arm.failed)],
        openings=[*(test.lines() if test else ()), *result.openings, *([history] if history else ())],
        baseline=result.baseline,
        findings=result.findings,
        others=[row for other in others for row in _rows_of(other)],
        test_rows=test.rows() if test else (),
        test_kind=test.kind if test else "test",
        nested_table=test.nested.rows() if test and test.nested else ((), ()),
        fold_table=fold_rows(result),
        published=tuple(ablation.published),
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
    base = result.baseline.get(plain_name(result.metric))
    for arm in result.arms:
        c, verdict = arm.comparison, arm.verdict
        rest: list[Any] = [None, None, None, None, "reference"]
        if c is not None and verdict is not None:
            rest = [c.mean, verdict.low, verdict.high, verdict.p, verdict.word]
        rows.append([result.metric, arm.name, arm.mean.mean, arm.mean.sd, base, *rest])
    return rows


def _summary(arm: ArmResult, result: SuiteResult) -> ArmSummary:
    c, verdict = arm.comparison, arm.verdict
    figures: dict[str, Any] = {}
    if c is not None and verdict is not None:
        if arm.wider is not None:
            figures = {"wider_low": arm.wider.low, "wider_high": arm.wider.high, "wider_p": arm.wider.p}
        figures |= {
            "difference": c.mean,
            "difference_low": verdict.low,
            "difference_high": verdict.high,
            "better": verdict.better,
            "within": verdict.within,
            "worse": verdict.worse,
            "equal_within": verdict.equal_within,
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
        beside=main_details(arm, result),
        more=all_details(arm, result),
        seconds=arm.seconds,
        samples_per_second=arm.samples_per_second,
        parameters=int(arm.parameters) if isfinite(arm.parameters) else None,
        failed=len(arm.failed),
        collapsed=len(arm.collapsed.why) if arm.collapsed else 0,
        mean_without=arm.collapsed.without.mean if arm.collapsed else nan,
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
            of_pairs = {cell: a[cell] - b[cell] for cell in a.keys() & b.keys()}
            found = mean_interval(of_pairs, test_to_train=result.plan.test_to_train)
            figures[:, k, column] = found.mean, *((found.low, found.high) if found.sd > 0 else (np.nan, np.nan))
    return ClassDifferences(corpus.classes, arms, figures[0], figures[1], figures[2], measure)


def _tuned(predictions: Predictions) -> NDArray[Any]:
    """Return a threshold for each clip and label, (n, n_classes); 0.5 where scores are no numbers."""
    found = predictions.tuned().thresholds
    return np.full(predictions.scores.shape, 0.5) if found is None else found


def _pooled(scores: Mapping[str, Mapping[Cell, Predictions]], corpus: Corpus) -> dict[str, ReportPredictions]:
    """Return an arm's validation predictions, run below run; of several labels each run's with thresholds cross-fitted over its
    clips.
    """
    out = {}
    for arm, cells in scores.items():
        seeds = sorted({seed for seed, _ in cells})[:SEEDS_SHOWN]
        parts = [s for (seed, _), s in sorted(cells.items()) if seed in seeds]
        if parts:
            thresholds = None
            if corpus.task == "multilabel":
                thresholds = np.concatenate([_tuned(p) for p in parts])
            out[arm] = ReportPredictions(
                np.concatenate([p.scores for p in parts]), np.concatenate([p.targets for p in parts]), thresholds
            )
    return out
