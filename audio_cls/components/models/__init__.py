"""Models: one file per family, each stating its input domains, its parameter count and how it is built."""

from audio_cls.components.models.base import Model, parameter_count
from audio_cls.components.models.cnn import Cnn
from audio_cls.components.models.cnn4 import Cnn4
from audio_cls.components.models.conv1d import Conv1d
from audio_cls.components.models.conv2d import Conv2d
from audio_cls.components.models.crnn import Crnn
from audio_cls.components.models.deep_cnn import DeepCnn
from audio_cls.components.models.dual_stream import DualStream
from audio_cls.components.models.efficientnet_lite0 import EfficientNetLite0
from audio_cls.components.models.frame_mlp import FrameMlp
from audio_cls.components.models.logistic_regression import LogisticRegression
from audio_cls.components.models.mlp import Mlp
from audio_cls.components.models.mobilenet_v2 import MobileNetV2
from audio_cls.components.models.panns import Panns
from audio_cls.components.models.residual_cnn import ResidualCnn
from audio_cls.components.models.resnet18 import ResNet18
from audio_cls.components.models.rnn import Rnn
from audio_cls.components.models.small_cnn import SmallCnn
from audio_cls.components.models.transformer import Transformer
from audio_cls.components.models.vgg_fsd50k import VggFsd50k
from audio_cls.components.models.waveform_cnn import WaveformCnn

__all__ = [
    "Cnn",
    "Cnn4",
    "Conv1d",
    "Conv2d",
    "Crnn",
    "DeepCnn",
    "DualStream",
    "EfficientNetLite0",
    "FrameMlp",
    "LogisticRegression",
    "Mlp",
    "MobileNetV2",
    "Model",
    "Panns",
    "ResNet18",
    "ResidualCnn",
    "Rnn",
    "SmallCnn",
    "Transformer",
    "VggFsd50k",
    "WaveformCnn",
    "parameter_count",
]
