"""Predictions made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from audio_cls.metrics.predictions import Predictions


def made(scores: Any, targets: Any, task: str = "multiclass", classes: Sequence[str] = (), **more: Any) -> Predictions:
    """Predictions of the clips "0", "1", ... of classes "class 0", ..., unless `clips` or `classes` say otherwise."""
    scores = np.asarray(scores)
    clips = tuple(more.pop("clips", map(str, range(len(scores)))))
    names = tuple(classes) or tuple(f"class {k}" for k in range(scores.shape[1]))
    return Predictions(clips, scores, np.asarray(targets), names, task, **more)
