"""The data of an ablation suite's page: plain values, without runs or a server."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from audio_cls.metrics.published import Published
from audio_cls.metrics.slices import ArmSlice

__all__ = ["ArmCurve", "ArmSummary", "Cell", "ClassDifferences", "Predictions", "SuiteReport"]

NAN = math.nan


class Cell(NamedTuple):
    """The metric of one run. `fold` is None if there are no folds; `fold_name` is the group that it leaves out, if any."""

    arm: str
    seed: int
    fold: int | None
    value: float
    fold_name: str = ""

    @property
    def fold_text(self) -> str:
        """The fold as a reader knows it: by the name of its group, else by its number."""
        return self.fold_name or ("" if self.fold is None else str(self.fold))


@dataclass(frozen=True)
class ArmSummary:
    """One arm of a suite. Figures are in the metric's own units (0.021, not 2.1 points); NaN is not known yet.

    name: of the arm.
    changes: the declared keys in which it differs from the reference, key -> value; empty for the reference.
    reference: whether it is the reference arm; it has no difference and no verdict.
    n: runs with a figure.
    mean, sd, low, high: of the metric over those runs; [low, high] is the 95 % interval of the mean.
    difference, difference_low, difference_high: the paired mean difference from the reference and its interval, at the level of
        the arm's own step of Holm's procedure.
    pairs: on how many pairs (seed, fold) it rests.
    p_holm: of the paired test, after Holm over the arms.
    better, within, worse: probabilities that it is better by more than the margin, within it, worse by more.
    equal_within: the smallest margin within which it is shown to be equal.
    wider_low, wider_high, wider_p: of the test that speaks of new training sets too, likewise after Holm; NaN where the verdict is by it.
    verdict: "helps", "hurts", "no difference", "cannot tell" or "under way" ("" while there is none).
    text: the verdict in a line, figures and word.
    beside: lines that belong below the verdict: probabilities, the wider test, what would settle it.
    more: all lines on this arm: those, effects of training sets and seeds, the effect size, hints of power.
    seconds: of training, mean per run.
    samples_per_second: clips trained on in a second, mean.
    parameters: trainable ones of the model.
    failed: runs that ended without a figure.
    collapsed: runs whose figure says nothing, see `audio_cls.runs.collapse`; mean_without: of the other runs.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    reference: bool = False
    n: int = 0
    mean: float = NAN
    sd: float = NAN
    low: float = NAN
    high: float = NAN
    difference: float = NAN
    difference_low: float = NAN
    difference_high: float = NAN
    pairs: int = 0
    p_holm: float = NAN
    better: float = NAN
    within: float = NAN
    worse: float = NAN
    equal_within: float = NAN
    wider_low: float = NAN
    wider_high: float = NAN
    wider_p: float = NAN
    verdict: str = ""
    text: str = ""
    beside: Sequence[str] = ()
    more: Sequence[str] = ()
    seconds: float = NAN
    samples_per_second: float = NAN
    parameters: int | None = None
    failed: int = 0
    collapsed: int = 0
    mean_without: float = NAN


@dataclass(frozen=True)
class ArmCurve:
    """A metric over the epochs, averaged over the runs of an arm; the band is the 95 % interval of the mean, or the range.

    arm: name. metric: such as "val/macro_f1". epochs (from 1), mean, low, high: (n_epochs,) each; low and high may be empty.
    """

    arm: str
    metric: str
    epochs: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class ClassDifferences:
    """By class, the paired mean difference of each arm from the reference.

    classes: (n_classes,) names. arms: (n_arms,) names, the reference left out.
    mean, low, high: (n_classes, n_arms) in the measure's units, with the 95 % interval.
    measure: "F1", "AP", ...
    """

    classes: Sequence[str]
    arms: Sequence[str]
    mean: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    measure: str = "F1"


@dataclass(frozen=True)
class Predictions:
    """An arm's validation predictions, its runs one below the other (each clip once a seed under cross-validation).

    scores: (n, n_classes) probabilities. targets: (n, n_classes) 0 and 1.
    thresholds: (n_classes,) or (n, n_classes), multilabel: what each label was called with; 0.5 unless given.
    """

    scores: NDArray[Any]
    targets: NDArray[Any]
    thresholds: NDArray[Any] | None = None


@dataclass(frozen=True)
class SuiteReport:
    """All that the page of a suite is made from. What is left empty is left out of the page.

    title: of the page.
    metric: that the verdicts are about, such as "val/macro_f1"; `direction` is "maximize" or "minimize".
    task: "multiclass" or "multilabel".
    classes: (n_classes,) names.
    state: one line on how far it is: "complete: 90 of 90 runs", "half-way: 40 of 90 runs, 2 failed".
    captions: what holds for all verdicts: how often they were looked at, what their intervals are.
    margin: beyond it an arm is called better or worse in probabilities, in the metric's units; NaN for none.
    question: what the suite asks, prose.
    contract: (what, value) of all that the arms share, and how it was checked.
    arms: in the order declared; one of them is the reference.
    cells: one for each run with a figure.
    curves: for each arm and metric.
    class_differences: of the arms from the reference.
    predictions: arm -> its pooled validation predictions: confusion, ROC, precision and recall, calibration.
    confusion: arm -> (n_classes, n_classes) counts; taken from the predictions where it is not given.
    by_column: column of the clips -> the arms' figures by its values, see `compare_by`.
    notes: prose: hints of power, what the correction assumes, what a failure cost.
    openings: a line for each opening of the test split: who chose what by which metric, and the figures.
    others: (metric, arm, mean, sd, baseline, difference, low, high, p, verdict) of the suite's further metrics, in their own units.
    test_rows: (arm, metric, value, low, high, baseline, difference, low, high, p) on the test split, once it has been opened.
    test_kind: what these figures are: "test", or "cross-validation" where runs of the suite validate on those clips.
    nested_table: columns and rows of the arms chosen inside each fold, where nested choice was asked for.
    baseline: overall metric without its prefix -> figure of a model that learned nothing, on the same clips.
    findings: what is wrong with the arms' predictions, in sentences.
    fold_table: columns and rows of the arms' means by fold.
    published: figures of others, shown greyed beside the arms'.
    """

    title: str
    metric: str
    direction: str
    arms: Sequence[ArmSummary]
    classes: Sequence[str] = ()
    task: str = "multiclass"
    state: str = ""
    captions: Sequence[str] = ()
    margin: float = NAN
    question: str = ""
    contract: Sequence[tuple[str, Any]] = ()
    cells: Sequence[Cell] = ()
    curves: Sequence[ArmCurve] = ()
    class_differences: ClassDifferences | None = None
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    confusion: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    by_column: Mapping[str, Sequence[ArmSlice]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    openings: Sequence[str] = ()
    others: Sequence[Sequence[Any]] = ()
    test_rows: Sequence[Sequence[Any]] = ()
    test_kind: str = "test"
    nested_table: tuple[Sequence[str], Sequence[Sequence[Any]]] = ((), ())
    fold_table: tuple[Sequence[str], Sequence[Sequence[Any]]] = ((), ())
    published: Sequence[Published] = ()
    baseline: Mapping[str, float] = field(default_factory=dict)
    findings: Sequence[str] = ()

    @property
    def reference(self) -> str:
        """The name of the reference arm ("" where none is marked)."""
        return next((arm.name for arm in self.arms if arm.reference), "")
