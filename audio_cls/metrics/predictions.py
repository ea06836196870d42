"""A model's predictions of some clips: made once, scored once, and passed to everything that records, shows or compares them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_cls.metrics.classification import (
    Evaluation,
    confusion_matrix,
    decide_again,
    evaluate,
    fit_thresholds,
    predict,
)
from audio_cls.metrics.families import Families
from audio_cls.metrics.thresholds import PARTS, TUNED, cross_fit_thresholds

__all__ = ["Predictions"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of one model on a set of clips. Its figures are computed on first use and kept.

    clips: (n,) ids.
    scores: (n, n_classes) probabilities.
    targets: (n, n_classes) 0 and 1.
    classes: (n_classes,) names.
    task: "multiclass" or "multilabel".
    thresholds: (n_classes,) or (n, n_classes), multilabel: a label is called from here on; 0.5 unless given. Figures by them end in
        `_tuned`; those without that ending are at 0.5.
    tuned_on: how the thresholds came about, in words; empty at 0.5.
    groups: (n,) recording or speaker of each clip, drawn together by the bootstrap; each clip its own unless given.
    rows: (n,) the clips' rows in their corpus; empty unless given.
    families: name of a family -> the columns of its classes; empty where classes have none.
    """

    clips: tuple[str, ...]
    scores: NDArray[Any]
    targets: NDArray[Any]
    classes: tuple[str, ...]
    task: str
    thresholds: NDArray[Any] | None = None
    groups: tuple[str, ...] | None = None
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    tuned_on: str = ""
    families: Families = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The figures, overall and by class."""
        return evaluate(self.scores, self.targets, self.task, self.classes, self.thresholds, self.families)

    @cached_property
    def called(self) -> NDArray[np.bool_]:
        """The decisions, (n, n_classes)."""
        return predict(np.asarray(self.scores), self.task, self.thresholds)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Counts, (n_classes, n_classes), as `confusion_matrix` makes them of decisions."""
        return confusion_matrix(np.asarray(self.targets), self.called)

    @property
    def threshold_note(self) -> str:
        """What figures of decisions mean, in a sentence; empty with one label a clip."""
        if self.task != "multilabel":
            return ""
        if not self.tuned_on:
            return "Labels are called from 0.5 on."
        return (
            f"Figures that end in {TUNED}, and the decisions by class, are by thresholds {self.tuned_on}; the other figures of "
            "decisions are at 0.5."
        )

    @property
    def undefined_note(self) -> str:
        """Which figures are undefined (NaN) and why, in a sentence; empty where all are defined."""
        names = [name for name, value in self.evaluation.overall.items() if np.isnan(value)]
        if not names:
            return ""
        support = np.asarray(self.targets).sum(axis=0)
        if not len(self):
            why = "there are no clips"
        elif np.isnan(self.scores).any():
            why = "the model gives scores that are not numbers"
        elif not support.any():
            why = "no clip has a label"
        elif not ((support > 0) & (support < len(self))).any():
            why = "no class has both clips that hold it and clips that do not, which ranking needs"
        else:
            why = "these clips do not tell them"
        return f"Undefined here: {', '.join(names)}: {why}."

    def with_thresholds(self, thresholds: NDArray[Any] | None, tuned_on: str = "given") -> Predictions:
        """Return the same scores called by other thresholds; what depends on the scores' order alone is not
        computed again.

        Args:
            tuned_on: how the thresholds came about, as in "thresholds tuned on the validation clips".
        """
        changed = replace(self, thresholds=thresholds, tuned_on="" if thresholds is None else tuned_on)
        if "evaluation" in vars(self):
            vars(changed)["evaluation"] = decide_again(
                self.evaluation, self.scores, self.targets, self.task, thresholds, self.families
            )
        return changed

    def tuned(self) -> Predictions:
        """Return the same scores called by tuned thresholds, each clip by those fitted on other clips (`cross_fit_thresholds`);
        with one label a clip there are none to fit.
        """
        if self.task != "multilabel" or np.isnan(self.scores).any():
            return self
        thresholds = cross_fit_thresholds(self.scores, self.targets, self.groups)
        return self.with_thresholds(
            thresholds, f"cross-fitted over {PARTS} parts: no clip is called by a threshold that it tuned"
        )

    def fitted_thresholds(self) -> NDArray[np.float64] | None:
        """Return the thresholds (n_classes,) that fit these clips best, to call others by; None with one label a clip."""
        if self.task != "multilabel" or np.isnan(self.scores).any():
            return None
        return fit_thresholds(self.scores, self.targets)
