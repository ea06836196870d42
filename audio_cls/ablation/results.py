"""What a suite's runs say so far: arms with mean and interval, differences from the reference, verdicts.

A summary can be made at any time: pairs that are there count, cells that are missing are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import fmean

from audio_cls.ablation.contract import Plan
from audio_cls.ablation.declaration import Ablation, Cell
from audio_cls.ablation.predictions import stacked
from audio_cls.ablation.record import Recorded, openings
from audio_cls.data.corpus import Corpus
from audio_cls.metrics.bootstrap import Interval, clip_bootstrap, metric_function
from audio_cls.metrics.classification import check_metric
from audio_cls.metrics.paired import Comparison, Mean, compare, mean_interval
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.verdict import Verdict, in_points, verdicts

__all__ = ["ArmResult", "SuiteResult", "bootstrap_arms", "fold_rows", "summarise"]


@dataclass(frozen=True, eq=False)
class ArmResult:
    """One arm on one metric.

    values: figures by (seed, fold), NaN for a failed run. mean: of them, with its interval. comparison, verdict: with the
    reference; None for the reference itself. failed: (words, reason) of its failed runs. seconds, samples_per_second:
    means over its runs; parameters: of its model, NaN while unknown.
    """

    name: str
    values: Mapping[Cell, float]
    mean: Mean
    comparison: Comparison | None
    verdict: Verdict | None
    done: int
    planned: int
    failed: tuple[tuple[str, str], ...]
    seconds: float
    samples_per_second: float
    parameters: float


@dataclass(frozen=True, eq=False)
class SuiteResult:
    """A suite on one metric. `terms` is the contract, (what, value); `openings` a line for each opening of the test split.

    What stored predictions add (see `answers`): baseline: overall metric -> figure of a model that learned nothing, the mean over
    folds. findings: what is wrong with the arms' predictions, in sentences. scores: arm -> (seed, fold) -> predictions.
    """

    ablation: Ablation
    metric: str
    arms: tuple[ArmResult, ...]
    plan: Plan
    records: tuple[Recorded, ...]
    terms: tuple[tuple[str, str], ...]
    openings: tuple[str, ...]
    baseline: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    scores: Mapping[str, Mapping[Cell, Predictions]] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return sum(arm.done for arm in self.arms)

    @property
    def adopted(self) -> list[str]:
        """Which runs were taken over from elsewhere: a sentence for each place."""
        sources = [str(r.adopted_from["study"]) for r in self.records if r.adopted_from]
        return [
            f"{sources.count(source)} of {self.total} runs were taken over from {source}: the same experiments on the same data"
            for source in sorted(set(sources))
        ]

    @property
    def total(self) -> int:
        return len(self.plan.cells)

    @property
    def state(self) -> str:
        """How far it is, in a line."""
        failed = sum(len(arm.failed) for arm in self.arms)
        word = "complete" if self.done == self.total else "not begun" if not self.done else "under way"
        return f"{word}: {self.done} of {self.total} runs" + (f", {failed} failed" if failed else "")


def summarise(ablation: Ablation, plan: Plan, records: Sequence[Recorded], metric: str | None = None) -> SuiteResult:
    """Return the arms of a suite judged by one metric, by default its first; `records` must have passed `check_records`."""
    metric = metric or ablation.metrics[0]
    values: dict[str, dict[Cell, float]] = {arm: {} for arm in ablation.arms}
    for record in records:
        figure = record.figure(metric, ablation.select)
        if figure is not None:
            values[record.arm][record.cell] = figure
    comparisons = {
        arm: compare(
            values[arm],
            values[ablation.reference],
            test_to_train=plan.test_to_train,
            direction=check_metric(metric),
            arm=arm,
            reference=ablation.reference,
        )
        for arm in ablation.arms
        if arm != ablation.reference
    }
    judged = verdicts(comparisons, points=in_points(metric), margin=ablation.margin)
    arms = []
    for arm in ablation.arms:
        mine = [r for r in records if r.arm == arm]
        arms.append(
            ArmResult(
                name=arm,
                values=values[arm],
                mean=mean_interval(values[arm], test_to_train=plan.test_to_train),
                comparison=comparisons.get(arm),
                verdict=judged.get(arm),
                done=sum(r.done for r in mine),
                planned=len(mine),
                failed=tuple((r.words, r.reason) for r in mine if r.state == "FAILED"),
                seconds=_mean([r.cost.get("train_seconds", nan) for r in mine]),
                samples_per_second=_mean([r.cost.get("samples_per_second", nan) for r in mine]),
                parameters=_mean([r.cost.get("parameters", nan) for r in mine]),
            )
        )
    begun = next((r for r in records if r.facts), None)
    computed = (("computed in", f"{begun.facts['precision']} on {begun.facts['device.kind']}"),) if begun else ()
    return SuiteResult(
        ablation, metric, tuple(arms), plan, tuple(records), (*plan.terms, *computed), tuple(openings(records))
    )


def fold_rows(result: SuiteResult) -> tuple[list[str], list[list[object]]]:
    """Return columns and rows of a table with a row for each fold: the mean over seeds of every arm, in points where
    the metric is a share. No rows for a suite on one split.
    """
    names = result.plan.fold_names
    named = any(name != str(fold) for fold, name in names.items())
    scale = 100 if in_points(result.metric) else 1
    rows: list[list[object]] = []
    for fold, name in names.items():
        means = (_mean([v for (_, k), v in arm.values.items() if k == fold]) for arm in result.arms)
        rows.append([fold, *([name] if named else []), *(None if m != m else round(scale * m, 3) for m in means)])
    return ["fold", *(["left out"] if named else []), *(arm.name for arm in result.arms)], rows


def bootstrap_arms(
    result: SuiteResult, scores: Mapping[str, Mapping[Cell, Predictions]], corpus: Corpus, n_resamples: int = 1000
) -> dict[str, Interval]:
    """For each arm the paired bootstrap of its difference over clips, of runs at hand on the same clips: how far the difference
    of these very models would move on other clips. Arms without a common complete seed are left out, and the loss, which
    probabilities do not determine.
    """
    reference = result.ablation.reference
    if result.metric.rpartition("/")[2] == "loss":
        return {}
    metric = metric_function(result.metric, corpus.task)
    out: dict[str, Interval] = {}
    for arm in result.ablation.arms:
        pair = stacked(scores.get(arm, {}), scores.get(reference, {}), corpus, result.plan.folds)
        if arm == reference or pair is None:
            continue
        out[arm] = clip_bootstrap(
            pair.one,
            pair.other,
            corpus.targets[pair.clips],
            metric,
            groups=corpus.resampling_groups(pair.clips),
            n_resamples=n_resamples,
        )
    return out


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if isfinite(v)]
    return fmean(finite) if finite else nan
