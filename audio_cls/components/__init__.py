"""What an experiment is built from: families of models, augmentations, features, losses, sampling, optimisers, pretrained weights. Law: only `core` below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.components.augment import Augmentation as Augmentation
    from audio_cls.components.features import FeatureExtractor as FeatureExtractor
    from audio_cls.components.features import Features as Features
    from audio_cls.components.losses import Loss as Loss
    from audio_cls.components.models import Model as Model
    from audio_cls.components.normaliser import Normaliser as Normaliser
    from audio_cls.components.optim import Optimizer as Optimizer
    from audio_cls.components.optim import Schedule as Schedule
    from audio_cls.components.sampling import Sampling as Sampling

__getattr__, __dir__, __all__ = face(__name__, __file__)
