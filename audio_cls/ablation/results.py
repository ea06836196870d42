"""What a suite's runs say so far: arms with mean and interval, differences from the reference, verdicts.

A summary can be made at any time: pairs that are there count, cells that are missing are told. Verdicts are given once every
planned run is finished (see `looks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import fmean

from audio_cls.ablation.collapse import Collapsed
from audio_cls.ablation.contract import Plan
from audio_cls.ablation.declaration import Ablation, Cell
from audio_cls.ablation.looks import Looks
from audio_cls.ablation.record import Recorded, openings
from audio_cls.metrics.base import number_text
from audio_cls.metrics.classification import check_metric
from audio_cls.metrics.clip_differences import clip_differences
from audio_cls.metrics.multiplicity import holm, holm_levels
from audio_cls.metrics.paired import Comparison, Mean, compare, mean_interval
from audio_cls.metrics.predictions import Predictions
from audio_cls.metrics.verdict import Verdict, in_points, verdicts

__all__ = ["ArmResult", "SuiteResult", "Wider", "compare_arms", "compare_figures", "fold_rows", "summarise"]


@dataclass(frozen=True)
class Wider:
    """The test that speaks of new training sets too, beside a verdict by the clips' predictions: p after Holm over the arms, the
    interval at the level of the arm's own step, and its population in words.
    """

    p: float
    low: float
    high: float
    population: str


@dataclass(frozen=True, eq=False)
class ArmResult:
    """One arm on one metric.

    values: figures by (seed, fold), NaN for a failed run. mean: of them, with its interval. comparison, verdict: with the
    reference; None for the reference itself. wider: the wider test beside it, None where the verdict itself is by that. collapsed:
    its runs that have collapsed, None for none. failed: (words, reason) of its failed runs. seconds, samples_per_second: means over
    its runs; parameters: of its model, NaN while unknown.
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
    wider: Wider | None = None
    collapsed: Collapsed | None = None


@dataclass(frozen=True, eq=False)
class SuiteResult:
    """A suite on one metric. `terms` is the contract, (what, value); `openings` a line for each opening of the test split; `looks`
    how often its verdicts were looked at.

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
    looks: Looks
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


def compare_arms(
    ablation: Ablation,
    plan: Plan,
    records: Sequence[Recorded],
    metric: str,
    predictions: Mapping[str, Mapping[Cell, Predictions]] | None = None,
) -> dict[str, Comparison]:
    """Compare each arm with the reference by one metric over the pairs that are there, clip by clip where their `predictions` (arm
    -> (seed, fold) -> of the validation clips) are at hand.
    """
    return compare_figures(ablation, plan, _figures(ablation, records, metric), metric, predictions or {})


def compare_figures(
    ablation: Ablation,
    plan: Plan,
    figures: Mapping[str, Mapping[Cell, float]],
    metric: str,
    stored: Mapping[str, Mapping[Cell, Predictions]],
) -> dict[str, Comparison]:
    """Compare each arm with the reference by figures of one metric, arm -> (seed, fold) -> figure; `stored` as `compare_arms` takes
    predictions.
    """
    reference = ablation.reference
    return {
        arm: compare(
            figures[arm],
            figures[reference],
            test_to_train=plan.test_to_train,
            direction=check_metric(metric),
            arm=arm,
            reference=reference,
            clips=clip_differences(stored.get(arm, {}), stored.get(reference, {}), metric),
        )
        for arm in ablation.arms
        if arm != reference
    }


def summarise(
    ablation: Ablation,
    plan: Plan,
    records: Sequence[Recorded],
    metric: str | None = None,
    *,
    compared: Mapping[str, Comparison] | None = None,
    looks: Looks | None = None,
) -> SuiteResult:
    """Return the arms of a suite judged by one metric, by default its first; `records` must have passed `check_records`.

    Args:
        compared: as `compare_arms` returns them; made here, without predictions, unless given.
        looks: those at the suite, this one among them; as a first one unless given.
    """
    metric = metric or ablation.metrics[0]
    values = _figures(ablation, records, metric)
    comparisons = compare_arms(ablation, plan, records, metric) if compared is None else compared
    looks = looks or Looks(finished=all(r.done for r in records))
    points = in_points(metric)
    if looks.finished:
        judged = verdicts(comparisons, points=points, margin=ablation.margin, alpha=looks.alpha)
    else:
        planned = {arm: sum(r.arm == arm for r in records) for arm in ablation.arms}
        judged = {arm: _under_way(c, planned[arm], points) for arm, c in comparisons.items()}
    wider = _wider(comparisons, looks.alpha) if looks.finished else {}
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
                wider=wider.get(arm),
            )
        )
    begun = next((r for r in records if r.facts), None)
    computed = (("computed in", f"{begun.facts['precision']} on {begun.facts['device.kind']}"),) if begun else ()
    return SuiteResult(
        ablation, metric, tuple(arms), plan, tuple(records), (*plan.terms, *computed), tuple(openings(records)), looks
    )


def _figures(ablation: Ablation, records: Sequence[Recorded], metric: str) -> dict[str, dict[Cell, float]]:
    """Return arm -> (seed, fold) -> figure of the runs that are done, NaN for those that failed."""
    values: dict[str, dict[Cell, float]] = {arm: {} for arm in ablation.arms}
    for record in records:
        figure = record.figure(metric, ablation.select)
        if figure is not None:
            values[record.arm][record.cell] = figure
    return values


def _under_way(c: Comparison, planned: int, points: bool) -> Verdict:
    """Return the difference so far, with its 95 % interval and without a verdict."""
    if not c.n:
        return Verdict("under way", f"under way, no pair of {planned} yet", nan, nan, ())
    unit = " points" if points else ""
    difference = f"{number_text(c.mean, points, signed=True)}{unit}"
    interval = f" [{number_text(c.low, points)}, {number_text(c.high, points)}]" if isfinite(c.low) else ""
    text = f"{difference}{interval}: under way, {c.n} of {planned} pairs"
    return Verdict("under way", text, nan, nan, (), c.low, c.high, c.alpha, population=c.population)


def _wider(comparisons: Mapping[str, Comparison], alpha: float) -> dict[str, Wider]:
    """Return the wider test of the arms whose verdict is by the clips' predictions, Holm over all arms."""
    p_values = [c.wide.p for c in comparisons.values()]
    found = {}
    for (arm, c), p, level in zip(comparisons.items(), holm(p_values), holm_levels(p_values, alpha), strict=True):
        if c.clipwise:
            low, high = c.wide.interval(c.mean, level)
            found[arm] = Wider(p, low, high, c.wide.population)
    return found


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


def _mean(values: Sequence[float]) -> float:
    finite = [v for v in values if isfinite(v)]
    return fmean(finite) if finite else nan
