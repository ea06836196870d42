"""What a model called right while it was trained: accuracy and macro F1 of one epoch's training pass."""

from __future__ import annotations

import math

import numpy as np
import torch

from audio_cls.metrics.base import MacroF1

__all__ = ["TrainingCounts"]


class TrainingCounts:
    """Counts, on the device, of the decisions that a training pass makes: hits, calls and labels of each class.

    They cost no pass of their own, and are of what was trained on: augmented and mixed clips (a mixed clip has the labels that it
    has more than half of, or with one label a clip the largest), with dropout, by weights that change from step to step. Figures
    of the training clips as they are, by the best weights, are `audio-cls evaluate RUN --train`.
    """

    def __init__(self, n_classes: int, task: str, device: torch.device) -> None:
        self.task, self.clips = task, 0
        self.right = torch.zeros((), device=device, dtype=torch.float64)
        self.sums = torch.zeros(3, n_classes, device=device, dtype=torch.float64)

    @torch.no_grad()
    def add(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Count a batch: logits and soft targets, both (batch, n_classes)."""
        if self.task == "multiclass":
            guess, true = logits.argmax(1, keepdim=True), targets.argmax(1, keepdim=True)
            self.right += (guess == true).sum()
            called = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, guess, True)
            truth = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, true, True)
        else:
            called, truth = logits >= 0, targets > 0.5
        self.sums += torch.stack([(called & truth).sum(0), called.sum(0), truth.sum(0)])
        self.clips += len(logits)

    def figures(self) -> dict[str, float]:
        """Return `train/macro_f1`, where any class occurs, and with one label a clip `train/accuracy`."""
        sums = np.concatenate([[0.0, self.clips], self.sums.cpu().numpy().reshape(-1)])
        macro_f1 = float(MacroF1().of_counts(sums))
        found = {"train/accuracy": float(self.right) / max(self.clips, 1)} if self.task == "multiclass" else {}
        return found | ({"train/macro_f1": macro_f1} if math.isfinite(macro_f1) else {})
