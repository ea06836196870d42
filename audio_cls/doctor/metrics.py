"""What every metric must hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from audio_cls.core.errors import UserError
from audio_cls.doctor.findings import Check, Skipped, Wrong, expect
from audio_cls.metrics.base import Metric

__all__ = ["CHECKS"]

_FAMILIES = {"low": (0, 1), "high": (2,)}
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def _predictions(task: str, noise: float) -> Arrays:
    """Return scores, targets and called labels of 40 clips and 3 classes; without noise all are right."""
    rng = np.random.default_rng(0)
    if task == "multiclass":
        targets = np.eye(3, dtype=bool)[rng.integers(0, 3, 40)]
    else:
        targets = rng.random((40, 3)) < 0.4
    scores = np.clip((1 - noise) * (0.9 * targets + 0.05) + noise * rng.random((40, 3)), 0.01, 0.99)
    if task == "multiclass":
        scores = scores / scores.sum(1, keepdims=True)
        return scores, targets, np.eye(3, dtype=bool)[scores.argmax(1)]
    return scores, targets, scores > 0.5


def _computed(config: Metric, arrays: Arrays, task: str) -> float:
    scores, targets, called = (array.copy() for array in arrays)
    metric = config.for_families(_FAMILIES)
    if metric is None:
        raise Wrong(
            "for_families gives nothing for classes that have families",
            "return the metric, or self where it needs no families",
        )
    try:
        value: Any = metric.compute(scores, targets, called, task)
    except UserError as refusal:
        raise Wrong(
            f"it refuses ordinary predictions ({task}): {refusal}",
            "compute it from scores, targets and called labels, and leave tasks that it is not defined for out of tasks",
        ) from None
    expect(
        isinstance(value, (float, int, np.floating)), f"it gives a {type(value).__name__} ({task})", "return one float"
    )
    expect(
        all(np.array_equal(a, b) for a, b in zip((scores, targets, called), arrays, strict=True)),
        f"it changes its arguments ({task})",
        "copy before an operation in place",
    )
    return float(value)


def check_value(config: Metric) -> None:
    expect(
        config.direction in ("maximize", "minimize"), f"direction is {config.direction!r}", "say maximize or minimize"
    )
    if config.of_training:
        _expect_refusal(config)
        return
    for task in config.tasks:
        for noise in (0.0, 0.8, 1.0):
            value = _computed(config, _predictions(task, noise), task)
            endless = noise == 0.0 and math.isinf(value)  # where all is right, as of d'
            expect(
                endless or math.isfinite(value), f"it gives {value} for ordinary predictions ({task})", "look for 0 / 0"
            )
            expect(
                config.low - 1e-9 <= value <= config.high + 1e-9,
                f"it gives {value:.4g}, outside its range of {config.low:g} to {config.high:g} ({task})",
                "set low and high of the class",
            )
            again = _computed(config, _predictions(task, noise), task)
            expect(
                again == value,
                f"two calls give {value:.6g} and {again:.6g} ({task})",
                "draw no random numbers, keep no state",
            )


def _expect_refusal(config: Metric) -> None:
    """A figure that only training knows must not be made up from stored predictions."""
    for task in config.tasks:
        for noise in (0.0, 1.0):
            try:
                value = config.compute(*_predictions(task, noise), task)
            except UserError:
                continue
            raise Wrong(
                f"of_training is set, and it gives {value} from predictions alone ({task})",
                "raise audio_cls.UserError in score, or leave of_training out",
            )


def check_direction(config: Metric) -> None:
    if config.of_training:
        raise Skipped("only training computes it; the check `direction` of losses looks at its sign")
    for task in config.tasks:
        right, random = (_computed(config, _predictions(task, noise), task) for noise in (0.0, 1.0))
        better = right > random if config.direction == "maximize" else right < random
        expect(
            better,
            f"right predictions score {right:.4g}, random ones {random:.4g}, and direction is {config.direction!r} ({task})",
            "turn direction round, or the sign of the figure",
        )


def check_empty(config: Metric) -> None:
    """No clips, and a class that no clip has, are not an error."""
    if config.of_training:
        raise Skipped("only training computes it")
    for task in config.tasks:
        arrays = _predictions(task, 0.8)
        rows: Arrays = (arrays[0][:0], arrays[1][:0], arrays[2][:0])
        one: Arrays = (arrays[0][:1], arrays[1][:1], arrays[2][:1])
        for name, given in (("no clips", rows), ("one clip", one)):
            try:
                with np.errstate(all="ignore"):
                    _computed(config, given, task)
            except (Wrong, Skipped):
                raise
            except Exception as error:
                raise Wrong(
                    f"it raises {type(error).__name__} for {name} ({task}): {error}",
                    "return NaN where it is not defined",
                ) from None


CHECKS: dict[str, Check] = {"value": check_value, "direction": check_direction, "few clips": check_empty}
