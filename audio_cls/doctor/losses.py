"""What every loss must hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from audio_cls.components.losses import TASKS, Loss, WeightedLoss
from audio_cls.core.config import ConfigError
from audio_cls.doctor.findings import Check, Skipped, Wrong, expect, seeded

__all__ = ["AFTER", "CHECKS"]

N_CLIPS, N_CLASSES = 6, 4
_COUNTS = (40.0, 20.0, 10.0, 5.0)


def _targets(task: str) -> Tensor:
    """Return (clips, classes) of 0 and 1: one label a clip, or none to three."""
    targets = torch.zeros(N_CLIPS, N_CLASSES)
    for i in range(N_CLIPS):
        targets[i, i % N_CLASSES] = 1
        if task == "multilabel":
            targets[i] = torch.tensor([i % 2, i // 2 % 2, i // 4 % 2, i == 5], dtype=torch.float32)
    return targets


def _built(config: Loss) -> Iterator[tuple[str, Any]]:
    for task in config.tasks:
        loss: Any = config.build(torch.tensor(_COUNTS), int(sum(_COUNTS)), task)
        expect(callable(loss), f"build gives a {type(loss).__name__}", "return a torch.nn.Module of (logits, targets)")
        yield task, loss


def check_value(config: Loss) -> None:
    for task, loss in _built(config):
        for targets in (_targets(task), 0.9 * _targets(task) + 0.02):  # soft targets: label smoothing, mixup
            out = loss(seeded(N_CLIPS, N_CLASSES), targets)
            expect(isinstance(out, Tensor), f"it gives a {type(out).__name__} ({task})", "return one number, a tensor")
            expect(
                tuple(out.shape) == (),
                f"it gives a tensor {tuple(out.shape)} for logits {(N_CLIPS, N_CLASSES)}, not one number ({task})",
                "return the mean over the batch: value.mean(), reduction='mean'",
            )
            expect(
                torch.isfinite(out), f"it gives {float(out):g} for ordinary logits ({task})", "look for log(0) or 0 / 0"
            )


def check_gradients(config: Loss) -> None:
    for task, loss in _built(config):
        for size in (1.0, 50.0):
            logits = (size * seeded(N_CLIPS, N_CLASSES)).requires_grad_()
            loss(logits, _targets(task)).backward()
            expect(logits.grad is not None, f"no gradient reaches the logits ({task})", "do not detach them")
            expect(
                logits.grad is not None and torch.isfinite(logits.grad).all(),
                f"the gradient is not finite for logits of size {size:g} ({task})",
                "use log_softmax and logsigmoid instead of the logarithm of a softmax or sigmoid",
            )
        expect(
            logits.grad is not None and logits.grad.abs().sum() > 0,
            f"the gradient is zero ({task})",
            "depend on the logits",
        )


def check_direction(config: Loss) -> None:
    for task, loss in _built(config):
        right = 8 * (2 * _targets(task) - 1)
        good, bad = float(loss(right, _targets(task))), float(loss(-right, _targets(task)))
        expect(
            good < bad,
            f"right logits have a loss of {good:.4g}, wrong ones of {bad:.4g} ({task})",
            "return what becomes smaller as the logits of the true labels grow; is a minus sign missing?",
        )


def check_determinism(config: Loss) -> None:
    for task, loss in _built(config):
        logits, targets = seeded(N_CLIPS, N_CLASSES), _targets(task)
        given = logits.clone(), targets.clone()
        first, second = loss(*given), loss(*given)
        expect(
            torch.equal(first, second), f"two calls give two values ({task})", "draw no random numbers, keep no state"
        )
        expect(
            torch.equal(given[0], logits) and torch.equal(given[1], targets),
            f"it changes its arguments ({task})",
            "copy before an operation in place",
        )


def check_tasks(config: Loss) -> None:
    expect(
        config.tasks and set(config.tasks) <= set(TASKS),
        f"tasks is {config.tasks!r}",
        f"name one or both of {', '.join(TASKS)}",
    )
    for task in set(TASKS) - set(config.tasks):
        try:
            config.build(torch.tensor(_COUNTS), int(sum(_COUNTS)), task)
        except ConfigError:
            continue
        raise Wrong(f"it is built for a {task} task, which tasks does not name", "call self.check_task(task) in build")


def check_bias(config: Loss) -> None:
    for task in config.tasks:
        bias = config.initial_bias(torch.tensor(_COUNTS), int(sum(_COUNTS)), task)
        expect(
            bias is None or (tuple(bias.shape) == (N_CLASSES,) and torch.isfinite(bias).all()),
            f"initial_bias gives {None if bias is None else tuple(bias.shape)} ({task})",
            "return one finite value a class, or None",
        )


def check_shared_settings(config: Loss) -> None:
    """A loss that takes the settings of `WeightedLoss` follows them."""
    if not isinstance(config, WeightedLoss):
        raise Skipped("it has no class_weights, label_smoothing or prior_bias")
    plain = config.override({"class_weights": "none", "label_smoothing": 0.0, "prior_bias": False})
    for task in config.tasks:
        logits, targets = seeded(N_CLIPS, N_CLASSES), _targets(task)
        values = {}
        for key, value in (("class_weights", "none"), ("class_weights", "inverse"), ("label_smoothing", 0.2)):
            loss: Any = plain.override({key: value}).build(torch.tensor(_COUNTS), int(sum(_COUNTS)), task)
            values[f"{key}={value}"] = float(loss(logits, targets))
        unused = [name for name, value in list(values.items())[1:] if value == values["class_weights=none"]]
        expect(
            not unused,
            f"{' and '.join(unused)} change{'s' * (len(unused) == 1)} nothing ({task})",
            "use self._weights(class_counts) and self.label_smoothing in build, or subclass Loss, which has no such keys",
        )
        bias = plain.override({"prior_bias": True}).initial_bias(torch.tensor(_COUNTS), int(sum(_COUNTS)), task)
        expect(bias is not None, f"prior_bias=True changes nothing ({task})", "return the bias in initial_bias")


CHECKS: dict[str, Check] = {
    "value": check_value,
    "gradients": check_gradients,
    "direction": check_direction,
    "determinism": check_determinism,
    "refusal of tasks": check_tasks,
    "initial bias": check_bias,
    "shared settings": check_shared_settings,
}
AFTER: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("gradients", "direction", "determinism", "shared settings"), ("value",)
)
"""Checks that tell nothing before others pass."""
