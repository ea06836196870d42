"""What every figure of a run's page must hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from audio_cls.doctor.findings import Check, Wrong, expect, first_line
from audio_cls.metrics.predictions import Predictions
from audio_cls.report.page import Html
from audio_cls.report.run_figures import Figure

__all__ = ["CHECKS"]

_METRIC = "val/macro_f1"
_EPOCHS = [
    {"epoch": k, "train/loss": 1 / k, "val/loss": 1.2 / k, "val/nll": 1.2 / k, "val/macro_f1": 1 - 0.9 / k}
    for k in (1, 2, 3)
]


def _predictions(task: str, n: int) -> Predictions:
    """Return random predictions of clips of three classes, the last of which no clip has."""
    rng = np.random.default_rng(0)
    targets = np.eye(3)[rng.integers(0, 2, n)] if task == "multiclass" else (rng.random((n, 3)) < (0.6, 0.4, 0)) * 1.0
    scores = rng.random((n, 3))
    if task == "multiclass":
        scores /= scores.sum(1, keepdims=True)
    return Predictions(tuple(f"clip {i}" for i in range(n)), scores, targets, ("one", "two", "three"), task)


def _drawn(config: Figure, predictions: Predictions, history: list[dict[str, float]]) -> str:
    """Return the figure as text; empty where it draws nothing."""
    scores, targets = np.array(predictions.scores), np.array(predictions.targets)
    made: Any = config.build(predictions, history, _METRIC)
    expect(
        np.array_equal(scores, predictions.scores) and np.array_equal(targets, predictions.targets),
        "it changes the predictions",
        "copy before an operation in place: other figures are drawn from them",
    )
    if made is None:
        return ""
    if isinstance(made, Html):
        return made.markup
    expect(
        hasattr(made, "to_json"),
        f"build gives a {type(made).__name__}",
        "return a plotly Figure, audio_cls.report.page.Html, or None if there is nothing to draw",
    )
    return str(made.to_json())


def check_drawing(config: Figure) -> None:
    drawn = [_drawn(config, _predictions(task, 40), _EPOCHS) for task in config.tasks]
    expect(any(drawn), "it draws nothing for ordinary predictions and three epochs", "return a figure from build")
    again = [_drawn(config, _predictions(task, 40), _EPOCHS) for task in config.tasks]
    expect(
        drawn == again,
        "two calls draw two figures",
        "draw no random numbers: a page that is made again is the same page",
    )


def check_little(config: Figure) -> None:
    """One clip, or a run without a finished epoch, is not an error: a page is made of these too."""
    for task in config.tasks:
        for name, n, history in (("one clip", 1, _EPOCHS), ("no epoch", 40, []), ("one epoch", 40, _EPOCHS[:1])):
            try:
                _drawn(config, _predictions(task, n), history)
            except Wrong:
                raise
            except Exception as error:
                raise Wrong(
                    f"with {name} it raises {first_line(error)} ({task})", "return None where there is nothing to draw"
                ) from None


CHECKS: dict[str, Check] = {"drawing": check_drawing, "little data": check_little}
