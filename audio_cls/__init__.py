"""audio_cls: search, train, track and compare audio classifiers.

The public face. Nothing is imported until it is used, so `import audio_cls` loads neither PyTorch nor Optuna nor MLflow.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_FACE = {
    "Experiment": "audio_cls.experiment",
    "Study": "audio_cls.study.declaration",
    "Ablation": "audio_cls.ablation.declaration",
    "Model": "audio_cls.components.models",
    "Loss": "audio_cls.components.losses",
    "Augmentation": "audio_cls.components.augment",
    "Features": "audio_cls.components.features",
    "FeatureExtractor": "audio_cls.components.features",
    "Sampling": "audio_cls.components.sampling",
    "Optimizer": "audio_cls.components.optim",
    "Schedule": "audio_cls.components.optim",
    "TPE": "audio_cls.study.declaration",
    "RandomSearch": "audio_cls.study.declaration",
    "Median": "audio_cls.study.declaration",
    "Percentile": "audio_cls.study.declaration",
    "NoPruning": "audio_cls.study.declaration",
    "UserError": "audio_cls.core.errors",
}

__all__ = sorted(_FACE)


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'audio_cls' has no attribute {name!r}")
    value = getattr(importlib.import_module(_FACE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACE})
