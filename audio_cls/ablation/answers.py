"""What the stored predictions of a suite's runs say beyond their figures: arms that call everything one class, arms at chance, the
figures of a model that learned nothing. Verdicts that rest on such arms are replaced by sentences that say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.ablation.collapse import collapse_findings, mark_collapsed
from audio_cls.ablation.contract import Plan
from audio_cls.ablation.declaration import Ablation, Cell
from audio_cls.ablation.losses import loss_caveat
from audio_cls.ablation.record import Recorded
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.base import uses_decisions
from audio_cls.metrics.baselines import (
    Judgement,
    accuracy_caveat,
    advice,
    baseline_figures,
    baseline_scores,
    few_clips,
    judge,
    single_answer,
)
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.verdict import Verdict
from audio_cls.runs.scores import read_predictions
from audio_cls.training.predictions import corpus_predictions

if TYPE_CHECKING:
    from audio_cls.ablation.results import ArmResult, SuiteResult
    from audio_cls.tracking import Tracker

__all__ = ["Answers", "amend", "judge_cells", "read_answers"]

NOTHING = "nothing to compare"


@dataclass(frozen=True, eq=False)
class Answers:
    """The predictions of a suite.

    scores: arm -> (seed, fold) -> the run's validation predictions. training: fold -> rows of its training clips.
    validation: fold -> rows of its validation clips.
    """

    scores: Mapping[str, Mapping[Cell, Predictions]]
    training: Mapping[int, NDArray[np.int64]]
    validation: Mapping[int, NDArray[np.int64]]

    def measured(self) -> NDArray[np.int64]:
        """Return the rows of all clips that runs are measured on."""
        return np.unique(np.concatenate(list(self.validation.values())))


def read_answers(
    ablation: Ablation, plan: Plan, records: Sequence[Recorded], corpus: Corpus, tracker: Tracker
) -> Answers:
    """Read the stored predictions of every complete run; those that cannot be had are missing."""
    scores: dict[str, dict[Cell, Predictions]] = {arm: {} for arm in ablation.arms}
    for record in records:
        if record.state == "COMPLETE" and record.run_id:
            found = read_predictions(tracker, record.run_id, corpus, ablation.select)
            if found is not None:
                scores[record.arm][record.cell] = found
    splits = {
        fold: ablation.experiment(ablation.reference, ablation.seeds[0], fold).data.assign(corpus)  # type: ignore[index]
        for fold in plan.folds
    }
    return Answers(scores, {f: s.train for f, s in splits.items()}, {f: s.validation for f, s in splits.items()})


def judge_cells(
    cells: Mapping[Cell, Predictions],
    training: Mapping[int, NDArray[np.int64]],
    corpus: Corpus,
    metric: str,
    settings: Mapping[str, Any] | None = None,
) -> Judgement:
    """Judge the predictions of several runs of one configuration together.

    Args:
        cells: (seed, fold) -> predictions.
        training: fold -> rows of its training clips.
        settings: the flat configuration, for the advice.
    """
    parts = sorted(cells.items())
    rows = np.concatenate([part.rows for _, part in parts])
    reference = [baseline_scores(corpus.targets[training[fold]], len(part.rows)) for (_, fold), part in parts]
    predictions = corpus_predictions(corpus, rows, np.concatenate([part.scores for _, part in parts]))
    found = judge(
        predictions,
        replace(predictions, scores=np.concatenate(reference)),
        metric,
        settings=settings,
        clips="validation predictions",
        counts=corpus.class_counts(np.unique(rows)),
    )
    constant = _constant(cells, corpus)
    if constant and (len(constant) < len(cells) or len(set(constant.values())) > 1):
        classes = ", ".join(f"{name!r} in {n}" for name, n in Counter(constant.values()).most_common())
        sentence = f"Calls everything one class in {len(constant)} of {len(cells)} runs ({classes})."
        return replace(found, findings=(sentence, *found.findings))
    return found


def amend(result: SuiteResult, answers: Answers, corpus: Corpus) -> SuiteResult:
    """Return a suite's result with its baseline, what is wrong with its arms' predictions, and verdicts that heed it."""
    ablation, primary = result.ablation, result.ablation.metrics[0]
    measured = corpus.targets[answers.measured()]
    caveat = accuracy_caveat(result.metric, measured, corpus.task, corpus.classes)
    constant = {arm: _constant(cells, corpus) for arm, cells in answers.scores.items()}
    to_try = _to_try(ablation, measured, corpus.task)
    arms = []
    for arm in result.arms:
        verdict = arm.verdict
        if verdict is not None and result.looks.finished:
            verdict = _heed(verdict, arm, result, constant, caveat)
            if verdict.text.endswith(NOTHING) and to_try:
                verdict = replace(verdict, text=f"{verdict.text}; {to_try[0].lower()}{to_try[1:].rstrip('.')}")
        if verdict is not None and (own_loss := loss_caveat(ablation, result.metric, arm.name)):
            verdict = replace(verdict, word="not judged", text=f"not judged: {own_loss}")
        arms.append(replace(arm, verdict=verdict))
    findings: list[str] = []
    if result.metric == primary:
        findings = _findings(answers, corpus, primary)
        findings += [to_try] if findings and to_try else []
        findings += [f"{caveat[0].upper()}{caveat[1:]}."] if caveat else []
        small = few_clips((measured > 0.5).sum(axis=0), corpus.classes)
        findings += [small] if small else []
    amended = mark_collapsed(replace(result, arms=tuple(arms), scores=answers.scores))
    collapsed = collapse_findings(amended) if result.metric == primary else []
    return replace(amended, baseline=_baseline(answers, corpus), findings=(*collapsed, *findings))


def _constant(cells: Mapping[Cell, Predictions], corpus: Corpus) -> dict[Cell, str]:
    """Return what each run calls everything, for the runs that do."""
    found = {cell: single_answer(part.scores, corpus.task, corpus.classes) for cell, part in cells.items()}
    return {cell: answer for cell, answer in found.items() if answer is not None}


def _baseline(answers: Answers, corpus: Corpus) -> dict[str, float]:
    """Return overall metric -> the baseline's figure, the mean over folds, as arms' figures are means over their runs."""
    folds = [
        baseline_figures(
            corpus.targets[answers.training[f]],
            corpus.targets[answers.validation[f]],
            corpus.task,
            corpus.family_columns,
        )
        for f in answers.training
    ]
    return {name: float(np.mean([f[name] for f in folds])) for name in folds[0] if all(name in f for f in folds)}


def _findings(answers: Answers, corpus: Corpus, metric: str) -> list[str]:
    """Return what is wrong with the arms' predictions, a sentence for each fault and the arms that share it."""
    whose: dict[str, list[str]] = {}
    for arm, cells in answers.scores.items():
        if cells:
            for sentence in judge_cells(cells, answers.training, corpus, metric).findings:
                whose.setdefault(sentence, []).append(arm)
    return [f"{', '.join(arms)}: {sentence[0].lower()}{sentence[1:]}" for sentence, arms in whose.items()]


def _to_try(ablation: Ablation, measured: NDArray[Any], task: str) -> str:
    """Return what to try that no arm tries yet; empty for nothing."""
    settings = ablation.arm(ablation.reference).flatten()
    tried = {key for changes in ablation.arms.values() for key in changes}
    return advice(settings, measured, task, {key.removesuffix(".kind") for key in tried})


def _heed(
    verdict: Verdict, arm: ArmResult, result: SuiteResult, constant: Mapping[str, Mapping[Cell, str]], caveat: str
) -> Verdict:
    """Return the verdict, unless there is nothing to compare, or the metric says little on these clips."""
    reference = result.ablation.reference
    theirs = next(a.values for a in result.arms if a.name == reference)
    pairs = [c for c, v in arm.values.items() if isfinite(v) and isfinite(theirs.get(c, float("nan")))]
    mine, other = constant.get(arm.name, {}), constant.get(reference, {})
    decided = uses_decisions(result.metric)
    if decided and pairs and all(cell in mine and cell in other for cell in pairs):
        return replace(verdict, word="cannot tell", text=_nothing_to_compare(arm.name, reference, mine, other, pairs))
    if caveat and result.metric != result.ablation.metrics[0]:
        return replace(verdict, word="not judged", text=f"not judged: {caveat}")
    return replace(verdict, text=f"{verdict.text}; but {caveat}") if caveat else verdict


def _nothing_to_compare(
    arm: str, reference: str, mine: Mapping[Cell, str], other: Mapping[Cell, str], pairs: Sequence[Cell]
) -> str:
    one, two = (sorted({side[cell] for cell in pairs}) for side in (mine, other))
    if one == two and len(one) == 1:
        return f"both call everything {one[0]!r}: {NOTHING}"
    words = " or ".join(map(repr, one)), " or ".join(map(repr, two))
    return f"both call everything one class in each run ({arm} {words[0]}, {reference} {words[1]}): {NOTHING}"
