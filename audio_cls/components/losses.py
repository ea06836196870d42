"""Losses on logits and soft targets, with class weights, label smoothing, logit adjustment and a bias that starts at the class priors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from audio_cls.core.config import Component, ConfigError
from audio_cls.core.errors import choices

__all__ = [
    "Bce",
    "CrossEntropy",
    "Focal",
    "LogitAdjusted",
    "Loss",
    "WeightedLoss",
    "class_weights",
    "log_odds",
    "log_priors",
    "part_shares",
    "splits_into_parts",
]

TASKS = ("multiclass", "multilabel")


class Loss(Component, family=True):
    """What training makes small. Every member takes logits (batch, n_classes) and soft targets of the same shape."""

    tasks: ClassVar[tuple[str, ...]] = TASKS

    @abstractmethod
    def build(self, class_counts: Tensor, n_clips: int, task: str) -> nn.Module:
        """Return a module with forward(logits, targets) -> scalar.

        A scalar that is a mean over something else than the clips also needs `batch_weight(targets)`, the sum of the weights that
        it divides by: with it a batch that does not fit into memory is trained in parts and gets the same gradient.

        Args:
            class_counts: (n_classes,) training clips of each class.
            n_clips: training clips.
            task: "multiclass" (one label a clip) or "multilabel".

        Raises:
            ConfigError: where this loss is not made for the task.
        """
        raise NotImplementedError

    def initial_bias(self, class_counts: Tensor, n_clips: int, task: str) -> Tensor | None:
        """Return what the bias of the output layer starts at, (n_classes,), or None to leave it."""
        return None

    def value_settings(self) -> dict[str, Any]:
        """Return the settings that the loss's value depends on, by name: figures of losses that agree in them can be compared."""
        return self.to_dict()

    def check_task(self, task: str) -> None:
        if task not in TASKS:
            raise ConfigError(f"task {task!r}: {choices(task, TASKS)}")
        if task not in self.tasks:
            others = sorted(
                kind for kind, other in Loss.members().items() if issubclass(other, Loss) and task in other.tasks
            )
            raise ConfigError(
                f"loss.kind={self.kind} is for {' and '.join(self.tasks)} tasks, and this one is {task}. Allowed: {', '.join(others)}, "
                f"for example --set loss={others[0]}"
            )


class WeightedLoss(Loss):
    """The settings that our losses share.

    `class_weights`: `inverse` is 1 / frequency; `effective` is (1 - b) / (1 - b^n) with b = `effective_beta` (Cui et al.,
    "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019); both have mean 1 over the classes present.
    `prior_bias` starts the output layer's bias at the training priors: log p for a softmax, log p / (1 - p) for sigmoids.
    """

    class_weights: Literal["none", "inverse", "effective"] = "none"
    """Weight of each class: the same, 1 / frequency, or by the effective number of clips."""
    effective_beta: float = Field(default=0.999, gt=0, lt=1)
    """With class_weights=effective: b of (1 - b) / (1 - b^n)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the classes."""
    prior_bias: bool = False
    """Start the output layer's bias at the class priors."""

    def initial_bias(self, class_counts: Tensor, n_clips: int, task: str) -> Tensor | None:
        self.check_task(task)
        if not self.prior_bias:
            return None
        return log_priors(class_counts) if self._is_softmax(task) else log_odds(class_counts, n_clips)

    def value_settings(self) -> dict[str, Any]:
        unused = {"prior_bias"} | (set() if self.class_weights == "effective" else {"effective_beta"})
        return {key: value for key, value in super().value_settings().items() if key not in unused}

    def _is_softmax(self, task: str) -> bool:
        return task == "multiclass"

    def _weights(self, class_counts: Tensor) -> Tensor:
        return class_weights(class_counts, self.class_weights, self.effective_beta)


class CrossEntropy(WeightedLoss, kind="cross_entropy"):
    """Softmax cross entropy: sum_c w_c t_c (-log p_c), over the weight of the batch, sum_c w_c t_c.

    With one label a clip this is PyTorch's `CrossEntropyLoss` with weights and smoothing; a mixed target weighs as the mixture of
    its classes' weights. Smoothing gives each class 1 / n_classes of its share of every target.
    """

    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)

    def build(self, class_counts: Tensor, n_clips: int, task: str) -> nn.Module:
        self.check_task(task)
        return _Softmax(self._weights(class_counts), self.label_smoothing, gamma=0.0)


class Bce(WeightedLoss, kind="bce"):
    """Binary cross entropy of each class, averaged over clips and classes; on a multiclass task, each class against the rest.

    Class weights act on the positive term, -w_c t log p - (1 - t) log(1 - p), as `pos_weight` in PyTorch: a rare class's few
    positives count more, its many negatives as before. Smoothing moves targets towards 1/2.
    """

    def build(self, class_counts: Tensor, n_clips: int, task: str) -> nn.Module:
        self.check_task(task)
        return _Sigmoid(self._weights(class_counts), self.label_smoothing, gamma=0.0, alpha=None)

    def _is_softmax(self, task: str) -> bool:
        return False


class Focal(WeightedLoss, kind="focal"):
    """Cross entropy that counts an example less the better it is classified, by (1 - p_t)^gamma.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. Sigmoids on a multilabel task, averaged over clips and
    classes; a softmax on a multiclass one, averaged like `cross_entropy`. A soft target takes the expectation over its labels.
    `alpha` weighs positives by alpha and negatives by 1 - alpha, which a softmax does not have. Class weights and smoothing act
    as in `bce` and `cross_entropy`, which gamma=0 gives back.
    """

    gamma: float = Field(default=2.0, ge=0)
    """How strongly easy clips are weighted down; 0 does not."""
    alpha: float | None = Field(default=None, gt=0, lt=1)
    """Weight of the positives; none weights both alike."""

    def build(self, class_counts: Tensor, n_clips: int, task: str) -> nn.Module:
        self.check_task(task)
        weights = self._weights(class_counts)
        if task == "multilabel":
            return _Sigmoid(weights, self.label_smoothing, self.gamma, self.alpha)
        if self.alpha is not None:
            raise ConfigError(
                f"loss.alpha={self.alpha:g} weighs positives against negatives, and a multiclass task has a softmax: "
                "set loss.alpha=none, and loss.class_weights to weigh classes"
            )
        return _Softmax(weights, self.label_smoothing, self.gamma)


class LogitAdjusted(Loss, kind="logit_adjusted"):
    """Logit adjustment: the plain loss of logits to which `tau` times the log prior of each class is added, in training only.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, equation 10. With a softmax it is the cross entropy of
    f(x) + tau log p. The evaluated logits are f(x), without the added term: at tau = 1 they estimate the log posterior under
    equal class priors, whose highest value minimises the balanced error (1 - UAR).

    With sigmoids each label is a softmax of two classes, "there" with prior p and "not there" with 1 - p. Their two terms
    differ by tau log(p / (1 - p)), which is what is added to the label's logit. At tau = 1 the evaluated probabilities hold
    under a prior of 1/2 for every label, so that 0.5 is the threshold of the least balanced error, not of the highest F1:
    many more labels are called than are there. Judge by mAP, or by F1 at tuned thresholds.

    Because the evaluated probabilities are those of other priors, `nll`, `brier` and the calibration of skewed data get
    worse with tau, on purpose. Class weights and a bias at the priors would count the classes twice, and are left out here.
    """

    tau: float = Field(default=1.0, ge=0)
    """How strongly rare classes are raised; 0 is the plain loss, 1 aims at the balanced error."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the classes."""

    def build(self, class_counts: Tensor, n_clips: int, task: str) -> nn.Module:
        self.check_task(task)
        weights = torch.ones(len(class_counts))
        if task == "multilabel":
            offset = self.tau * log_odds(class_counts, n_clips)
            return _Sigmoid(weights, self.label_smoothing, gamma=0.0, alpha=None, offset=offset)
        return _Softmax(weights, self.label_smoothing, gamma=0.0, offset=self.tau * log_priors(class_counts))


# -- weights and priors -------------------------------------------------------------------------------------------


def class_weights(counts: Tensor, how: str, beta: float = 0.999) -> Tensor:
    """Return weights (n_classes,) float32 with mean 1 over the classes present; a class without a clip gets 1."""
    counts = counts.detach().double().cpu()
    present = counts > 0
    if how == "none" or not bool(present.any()):
        return torch.ones(len(counts))
    n = counts.clamp(min=1)
    raw = 1 / n if how == "inverse" else (1 - beta) / (1 - beta**n)
    return torch.where(present, raw / raw[present].mean(), torch.ones_like(raw)).float()


def log_priors(counts: Tensor) -> Tensor:
    """Return log p of each class among the labels, (n_classes,); a class without a clip counts as half a clip."""
    counts = counts.detach().double().cpu().clamp(min=0.5)
    return (counts / counts.sum()).log().float()


def log_odds(counts: Tensor, n_clips: int) -> Tensor:
    """Return log p / (1 - p) of each class among the clips, (n_classes,); none or all of the clips counts as half a
    clip off.
    """
    counts = counts.detach().double().cpu().clamp(min=0.5, max=n_clips - 0.5)
    return (counts / (n_clips - counts)).log().float()


# -- a batch in parts ---------------------------------------------------------------------------------------------


def part_shares(loss: nn.Module, targets: Sequence[Tensor]) -> list[Tensor]:
    """Return the share of each part of a batch in its loss: the sum of `share * loss(part)` is the loss of the whole batch.

    Args:
        targets: (clips, n_classes) of each part. A loss without `batch_weight` is taken for a mean over clips.
    """
    weigh = getattr(loss, "batch_weight", None)
    weights = [weigh(part) if weigh else part.new_tensor(float(len(part))) for part in targets]
    total = torch.stack(weights).sum().clamp(min=1e-12)
    return [weight / total for weight in weights]


@torch.no_grad()
def splits_into_parts(loss: nn.Module, n_classes: int, device: torch.device) -> bool:
    """Whether `part_shares` put a loss together again, tried on random logits of unequal parts."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(8, n_classes, generator=random).to(device)
    targets = F.one_hot(torch.randint(n_classes, (8,), generator=random), n_classes).float().to(device)
    parts = list(zip(logits.split((5, 3)), targets.split((5, 3)), strict=True))
    shares = part_shares(loss, [y for _, y in parts])
    together = sum(float(share * loss(x, y)) for share, (x, y) in zip(shares, parts, strict=True))
    whole = float(loss(logits, targets))
    return abs(together - whole) <= 1e-4 * max(abs(whole), 1e-6)


# -- modules ------------------------------------------------------------------------------------------------------


class _Softmax(nn.Module):
    weights: Tensor
    offset: Tensor | None

    def __init__(self, weights: Tensor, smoothing: float, gamma: float, offset: Tensor | None = None) -> None:
        super().__init__()
        self.smoothing, self.gamma = smoothing, gamma
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits, targets = _float(logits, targets)
        if self.offset is not None:
            logits = logits + self.offset
        log_p = torch.log_softmax(logits, 1)
        weight = self.batch_weight(targets)
        if self.smoothing:
            targets = torch.lerp(targets, torch.full_like(targets, 1 / targets.shape[1]), self.smoothing)
        terms = self.weights * targets * -log_p
        if self.gamma:
            # the bound keeps the slope of a power below 1 finite where p rounds to 1
            terms = terms * (1 - log_p.exp()).clamp(min=1e-8).pow(self.gamma)
        return terms.sum() / weight.clamp(min=1e-12)

    def batch_weight(self, targets: Tensor) -> Tensor:
        """Return what the sum over a batch is divided by: the weight of its targets, (batch, n_classes)."""
        return (targets * self.weights).sum()


class _Sigmoid(nn.Module):
    weights: Tensor
    offset: Tensor | None

    def __init__(
        self, weights: Tensor, smoothing: float, gamma: float, alpha: float | None, offset: Tensor | None = None
    ) -> None:
        super().__init__()
        self.smoothing, self.gamma = smoothing, gamma
        positive, negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
        self.negative = negative
        self.register_buffer("weights", weights * positive, persistent=False)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits, targets = _float(logits, targets)
        if self.offset is not None:
            logits = logits + self.offset
        if self.smoothing:
            targets = targets * (1 - self.smoothing) + self.smoothing / 2
        log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
        positive, negative = -self.weights * targets * log_p, -self.negative * (1 - targets) * log_q
        if self.gamma:
            positive, negative = positive * (self.gamma * log_q).exp(), negative * (self.gamma * log_p).exp()
        return (positive + negative).mean()


def _float(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape != targets.shape or logits.dim() != 2:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must both be (batch, n_classes)"
        )
    return logits.float(), targets.float()
