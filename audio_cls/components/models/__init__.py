"""Models: one file per family, each stating its input domains, its parameter count and how it is built."""

from audio_cls.components.models.base import Model, parameter_count
from audio_cls.components.models.cnn4 import Cnn4
from audio_cls.components.models.efficientnet_lite0 import EfficientNetLite0
from audio_cls.components.models.logistic_regression import LogisticRegression
from audio_cls.components.models.mlp import Mlp
from audio_cls.components.models.small_cnn import SmallCnn

__all__ = ["Cnn4", "EfficientNetLite0", "LogisticRegression", "Mlp", "Model", "SmallCnn", "parameter_count"]
