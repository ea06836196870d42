"""Optimisers and learning-rate schedules.

A schedule is a function of the position in training (in epochs, a float), not an object that is stepped, so that a resumed run
needs no replay. Only `plateau` depends on what was measured, and it reads that from the history of the run.
"""

from __future__ import annotations

import bisect
import inspect
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from audio_cls.core.config import Component, ConfigError

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "OneCycle",
    "Optimizer",
    "Parameters",
    "Plateau",
    "RMSprop",
    "Schedule",
    "Step",
]


Parameters = Iterable[torch.nn.Parameter] | list[dict[str, Any]]
"""What an optimiser is built with: parameters, or groups with `params` and `lr_factor`, which scales the learning rate."""


class Optimizer(Component, family=True):
    """An optimiser: `build(parameters)` gives the `torch.optim` object. `lr` is the peak learning rate."""

    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Strength of the weight decay."""

    @abstractmethod
    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        raise NotImplementedError


def _without_compiler(base: type[torch.optim.Optimizer]) -> type[Any]:
    """Return a class of optimisers that works like `base` and does not load PyTorch's compiler.

    PyTorch's optimisers import `torch._dynamo`, which takes more than a second of processor time, only to mark their methods for a
    compiler that is not used here. This class has the same methods without the marks.
    """
    marked = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(base, name)) for name in marked}
    methods["step"] = torch.no_grad()(inspect.unwrap(base.step))
    return type(base.__name__, (base,), methods)


_AdamW = _without_compiler(torch.optim.AdamW)
_Adam = _without_compiler(torch.optim.Adam)
_SGD = _without_compiler(torch.optim.SGD)
_RMSprop = _without_compiler(torch.optim.RMSprop)
_Adagrad = _without_compiler(torch.optim.Adagrad)


class AdamW(Optimizer, kind="adamw"):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    weight_decay: float = Field(default=1e-2, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the mean of the gradients."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the mean of the squared gradients."""

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        return _AdamW(
            parameters, lr=self.lr, weight_decay=self.weight_decay, betas=(self.beta1, self.beta2), fused=True
        )


class Adam(Optimizer, kind="adam"):
    """Adam (Kingma and Ba, 2015); weight decay is an L2 term."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the mean of the gradients."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the mean of the squared gradients."""

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        return _Adam(parameters, lr=self.lr, weight_decay=self.weight_decay, betas=(self.beta1, self.beta2), fused=True)


class SGD(Optimizer, kind="sgd"):
    """Stochastic gradient descent with momentum."""

    lr: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the previous step that is kept."""
    nesterov: bool = True
    """Nesterov's momentum."""

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        nesterov = self.nesterov and self.momentum > 0
        return _SGD(
            parameters,
            lr=self.lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=nesterov,
            fused=True,
        )


class RMSprop(Optimizer, kind="rmsprop"):
    """RMSprop (Tieleman and Hinton, 2012)."""

    alpha: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the mean of the squared gradients."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Share of the previous step that is kept."""

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        return _RMSprop(
            parameters, lr=self.lr, weight_decay=self.weight_decay, alpha=self.alpha, momentum=self.momentum
        )


class Adagrad(Optimizer, kind="adagrad"):
    """Adagrad (Duchi, Hazan and Singer, 2011)."""

    lr: float = Field(default=1e-2, gt=0)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        return _Adagrad(parameters, lr=self.lr, weight_decay=self.weight_decay)


class Schedule(Component, family=True):
    """A learning-rate schedule with a linear warm-up over the first `warmup_epochs`."""

    # What a run means that continues to a larger budget than it started with: "same" (the learning rate does not depend on the
    # budget: the run equals one that had the larger budget from the start), "rescaled" (from there on, the schedule of the
    # larger budget), or "refused".
    longer: ClassVar[Literal["same", "rescaled", "refused"]] = "refused"
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs of linear warm-up."""

    def factor(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]] = (), step: float = 0.0) -> float:
        """Return the learning rate at `epoch` of `epochs`, as a factor of the optimiser's `lr`.

        Args:
            epoch: a float, epochs done so far.
            history: one row for each epoch done.
            step: length of an optimiser step in epochs, for a schedule whose end is the last step (`shape_of_steps`).
        """
        warm = min(1.0, (epoch + 1e-9) / self.warmup_epochs) if epoch < self.warmup_epochs else 1.0
        return warm * self.shape_of_steps(epoch, epochs, history, step)

    def shape_of_steps(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]], step: float) -> float:
        """Return `shape`, laid out over steps that are `step` epochs long."""
        return self.shape(epoch, epochs, history)

    def snapshot_epochs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs, counted from 1, whose validation predictions a run of `epochs` epochs keeps for a snapshot ensemble:
        those that end a cycle of the learning rate. Empty for a schedule without cycles.
        """
        return ()

    def check(self, epochs: int) -> None:
        """Refuse a budget that the schedule cannot be laid out over.

        Raises:
            ConfigError: naming the keys.
        """

    @abstractmethod
    def shape(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]]) -> float:
        raise NotImplementedError


class Constant(Schedule, kind="constant"):
    """The same learning rate throughout."""

    longer: ClassVar[Literal["same", "rescaled", "refused"]] = "same"

    def shape(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]]) -> float:
        return 1.0


class Cosine(Schedule, kind="cosine"):
    """Half a cosine from 1 to `final` (Loshchilov and Hutter, 2017), counted from the end of the warm-up."""

    longer: ClassVar[Literal["same", "rescaled", "refused"]] = "rescaled"
    final: float = Field(default=0.0, ge=0, le=1)
    """Learning rate at the end, as a share of lr."""

    def shape(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]]) -> float:
        span = max(epochs - self.warmup_epochs, 1e-9)
        done = min(1.0, max(0.0, epoch - self.warmup_epochs) / span)
        return _cosine(1.0, self.final, done)


class CosineRestarts(Schedule, kind="cosine_restarts"):
    """Cosines from 1 to `final`, one after the other (warm restarts, Loshchilov and Hutter, 2017). The validation predictions at the end of each
    are kept for a snapshot ensemble (Huang et al., ICLR 2017): `audio-cls compare --average RUN --snapshots all`.

    The cycles are of equal length, in whole epochs: where `cycles` does not divide the budget, they differ by one epoch. The
    warm-up is part of the first. A restart makes figures worse for some epochs: `training.early_stopping` should be longer than a cycle.
    """

    cycles: int = Field(default=5, ge=2, le=20)
    """Cosines in the training."""
    final: float = Field(default=0.0, ge=0, le=1)
    """Learning rate at the end of a cycle, as a share of lr."""

    def shape(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]]) -> float:
        ends = self.snapshot_epochs(epochs)
        cycle = min(bisect.bisect_right(ends, epoch), self.cycles - 1)
        start = ends[cycle - 1] if cycle else self.warmup_epochs
        done = (epoch - start) / max(ends[cycle] - start, 1e-9)
        return _cosine(1.0, self.final, min(1.0, max(0.0, done)))

    def snapshot_epochs(self, epochs: int) -> tuple[int, ...]:
        return tuple((k * epochs + self.cycles // 2) // self.cycles for k in range(1, self.cycles + 1))

    def check(self, epochs: int) -> None:
        """Refuse more cycles than epochs, and a warm-up that leaves nothing of the first cycle.

        Raises:
            ConfigError: naming the keys.
        """
        if self.cycles > epochs:
            raise ConfigError(
                f"schedule.cycles={self.cycles}: a cycle takes one epoch at least, and training.epochs={epochs}: set fewer cycles or more epochs"
            )
        first = self.snapshot_epochs(epochs)[0]
        if self.warmup_epochs >= first:
            raise ConfigError(
                f"schedule.warmup_epochs={self.warmup_epochs:g} is not shorter than the first of {self.cycles} cycles, which has {first} "
                f"of training.epochs={epochs}"
            )


class Step(Schedule, kind="step"):
    """Multiplied by `gamma` every `step_epochs`."""

    longer: ClassVar[Literal["same", "rescaled", "refused"]] = "same"
    step_epochs: int = Field(default=10, ge=1)
    """Epochs between two reductions."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor of a reduction."""

    def shape(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]]) -> float:
        return float(self.gamma ** int(epoch // self.step_epochs))


class Plateau(Schedule, kind="plateau"):
    """Multiplied by `gamma` after each `patience` + 1 epochs in which `monitor` did not improve."""

    longer: ClassVar[Literal["same", "rescaled", "refused"]] = "same"
    monitor: Literal["val/loss", "train/loss", "val/nll"] = "val/loss"
    """What must improve; val/nll is the same figure whatever loss is trained on."""
    patience: int = Field(default=3, ge=0)
    """Epochs without improvement before a reduction."""
    gamma: float = Field(default=0.5, gt=0, lt=1)
    """Factor of a reduction."""
    threshold: float = Field(default=1e-4, ge=0)
    """Smallest relative improvement that counts."""

    def shape(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]]) -> float:
        best, bad, factor = math.inf, 0, 1.0
        for row in history[: int(epoch)]:
            value = row[self.monitor]
            if value < best * (1 - self.threshold):
                best, bad = value, 0
            else:
                bad += 1
            if bad > self.patience:
                factor, bad = factor * self.gamma, 0
        return factor


class OneCycle(Schedule, kind="one_cycle"):
    """Up from `lr / start_div` to `lr` over the first `rise` of training, then down to `lr / start_div / final_div`, both as
    cosines (Smith and Topin, 2018); at every step what PyTorch's `OneCycleLR` gives.
    """

    rise: float = Field(default=0.3, gt=0, lt=1)
    """Share of training in which the learning rate rises."""
    start_div: float = Field(default=25.0, ge=1)
    """lr divided by the learning rate at the start."""
    final_div: float = Field(default=1e4, ge=1)
    """Learning rate at the start divided by that at the end."""

    def shape(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]]) -> float:
        return self.shape_of_steps(epoch, epochs, history, 0.0)

    def shape_of_steps(self, epoch: float, epochs: int, history: Sequence[dict[str, Any]], step: float) -> float:
        """Return the factor at `epoch`. As in PyTorch the peak is the last step of the rise, the end the last step of all."""
        done, one = min(1.0, epoch / max(epochs, 1)), step / max(epochs, 1)  # as shares of the training
        low, end = 1 / self.start_div, 1 / self.start_div / self.final_div
        peak, last = self.rise - one, 1 - one
        if done < peak:
            return _cosine(low, 1.0, done / peak)
        return _cosine(1.0, end, min(1.0, (done - peak) / (last - peak)))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))
