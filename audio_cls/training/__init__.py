"""The training loop, its batches, checkpoints and predictions. Law: it knows neither Optuna nor MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.training.batches import Batches as Batches
    from audio_cls.training.batches import FeatureCache as FeatureCache
    from audio_cls.training.checkpoint import Checkpoint as Checkpoint
    from audio_cls.training.checkpoint import CheckpointStore as CheckpointStore
    from audio_cls.training.loop import Fit as Fit
    from audio_cls.training.loop import fit as fit

__getattr__, __dir__, __all__ = face(__name__, __file__)
