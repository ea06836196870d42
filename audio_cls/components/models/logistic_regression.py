"""Logistic regression: fitted by scikit-learn in one call, then used as a torch module."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from audio_cls.components.models.base import Model, refuse_shape
from audio_cls.core.config import ConfigError

__all__ = ["LogisticRegression"]

_NEVER = -30.0  # logit of a class without training clips: a probability of about 1e-13


class LogisticRegression(Model, kind="logistic_regression"):
    """Standardised inputs, one linear layer, an L2 penalty of 1 / (2 c), fitted by scikit-learn: (d + 1) n_classes parameters for d inputs.

    Softmax over classes when each clip has one, one binary regression a label when it may have several.
    """

    input_domains: ClassVar[tuple[str, ...]] = ("embedding",)
    closed_form: ClassVar[bool] = True

    c: float = Field(default=1.0, gt=0)
    """Inverse strength of the L2 penalty."""
    max_iter: int = Field(default=2000, ge=1)
    """Most iterations of the solver."""
    class_weight: Literal["none", "balanced"] = "none"
    """Weight of each class: the same, or 1 / frequency."""

    def build(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        if len(input_shape) != 1 or input_shape[0] < 1:
            raise refuse_shape(self, input_shape, "(n_features,), for example features.kind=mfcc_statistics")
        return _LogisticRegression(self, input_shape[0], n_classes)


class _LogisticRegression(nn.Module):
    mean: Tensor
    scale: Tensor

    def __init__(self, config: LogisticRegression, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.output = nn.Linear(n_features, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output((x - self.mean) / self.scale)

    def fit_closed_form(self, x: Tensor, y: Tensor, seed: int = 0, task: str | None = None) -> dict[str, Any]:
        """Fit to `x` (n, n_features) and targets `y` (n, n_classes) of zeros and ones.

        `task` is "multiclass" or "multilabel"; without it, targets with exactly one label in every row are taken for multiclass.
        The logits then give scikit-learn's `predict_proba` under softmax (multiclass) or sigmoid (multilabel). A class without
        a clip gets a probability near 0.

        Returns:
            `iterations` (the most of any regression), `converged`, `n_clips`, `task`.

        Raises:
            ConfigError: for targets that are not zeros and ones, or more or fewer than one label a clip in a multiclass task.
        """
        from sklearn.preprocessing import StandardScaler

        inputs = x.detach().cpu().double().numpy()
        targets = y.detach().cpu().numpy()
        if not np.isin(targets, (0, 1)).all():
            raise ConfigError(
                "model.kind=logistic_regression is fitted to targets of 0 and 1, and cannot take mixed or soft ones"
            )
        single = bool((targets.sum(1) == 1).all())
        if task is None:
            task = "multiclass" if single else "multilabel"
        if task == "multiclass" and not single:
            row = int(np.flatnonzero(targets.sum(1) != 1)[0])
            raise ConfigError(
                f"a multiclass task has one label a clip, but training clip {row} has {int(targets[row].sum())}"
            )

        scaler = StandardScaler().fit(inputs)
        inputs = scaler.transform(inputs)
        fit = self._softmax if task == "multiclass" else self._one_against_rest
        coefficients, bias, iterations = fit(inputs, targets, seed)
        with torch.no_grad():
            for parameter, value in (
                (self.mean, scaler.mean_),
                (self.scale, scaler.scale_),
                (self.output.weight, coefficients),
                (self.output.bias, bias),
            ):
                parameter.copy_(torch.as_tensor(value))
        return {
            "iterations": iterations,
            "converged": iterations < self.config.max_iter,
            "n_clips": len(inputs),
            "task": task,
        }

    def _softmax(self, x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
        n_classes = y.shape[1]
        coefficients, bias = np.zeros((n_classes, x.shape[1])), np.full(n_classes, _NEVER)
        present = np.flatnonzero(y.sum(0))
        if len(present) == 1:
            bias[present] = 0.0
            return coefficients, bias, 0
        found = self._regression(x, y.argmax(1), seed)
        if len(present) == 2:  # scikit-learn keeps one row: the log-odds of the second class against the first
            coefficients[present] = np.vstack([-found.coef_ / 2, found.coef_ / 2])
            bias[present] = np.concatenate([-found.intercept_ / 2, found.intercept_ / 2])
        else:
            coefficients[present], bias[present] = found.coef_, found.intercept_
        return coefficients, bias, int(np.max(found.n_iter_))

    def _one_against_rest(self, x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
        n_classes = y.shape[1]
        coefficients, bias, iterations = np.zeros((n_classes, x.shape[1])), np.zeros(n_classes), 0
        for label in range(n_classes):
            positives = int(y[:, label].sum())
            if positives in (0, len(y)):
                bias[label] = _NEVER if positives == 0 else -_NEVER
                continue
            found = self._regression(x, y[:, label], seed)
            coefficients[label], bias[label] = found.coef_[0], found.intercept_[0]
            iterations = max(iterations, int(np.max(found.n_iter_)))
        return coefficients, bias, iterations

    def _regression(self, x: np.ndarray, y: np.ndarray, seed: int) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression as Reference

        balanced = "balanced" if self.config.class_weight == "balanced" else None
        regression = Reference(C=self.config.c, max_iter=self.config.max_iter, class_weight=balanced, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` in the result tells
            return regression.fit(x, y)
