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

__all__ = ["Predictions"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of one model on a set of clips. Its figures are computed on first use and kept.

    clips: (n,) ids.
    scores: (n, n_classes) probabilities.
    targets: (n, n_classes) 0 and 1.
    classes: (n_classes,) names.
    task: "multiclass" or "multilabel".
    thresholds: (n_classes,) or (n, n_classes), multilabel: a label is called from here on; 0.5 unless given.
    groups: (n,) recording or speaker of each clip, drawn together by the bootstrap; each clip its own unless given.
    rows: (n,) the clips' rows in their corpus; empty unless given.
    """

    clips: tuple[str, ...]
    scores: NDArray[Any]
    targets: NDArray[Any]
    classes: tuple[str, ...]
    task: str
    thresholds: NDArray[Any] | None = None
    groups: tuple[str, ...] | None = None
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The figures, overall and by class."""
        return evaluate(self.scores, self.targets, self.task, self.classes, self.thresholds)

    @cached_property
    def called(self) -> NDArray[np.bool_]:
        """The decisions, (n, n_classes)."""
        return predict(np.asarray(self.scores), self.task, self.thresholds)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Counts, (n_classes, n_classes), as `confusion_matrix` makes them of decisions."""
        return confusion_matrix(np.asarray(self.targets), self.called)

    def with_thresholds(self, thresholds: NDArray[Any] | None) -> Predictions:
        """Return the same scores called by other thresholds; what depends on the scores' order alone is not
        computed again.
        """
        changed = replace(self, thresholds=thresholds)
        if "evaluation" in vars(self):
            vars(changed)["evaluation"] = decide_again(
                self.evaluation, self.scores, self.targets, self.task, thresholds
            )
        return changed

    def tuned(self) -> Predictions:
        """Return the same scores with the thresholds that fit them best; with one label a clip there are none to fit."""
        if self.task != "multilabel" or np.isnan(self.scores).any():
            return self
        return self.with_thresholds(fit_thresholds(self.scores, self.targets))
