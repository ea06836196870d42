"""Networks that follow a publication: their counts, their parameters' names and what is special to each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from audio_cls.components.models import EfficientNetLite0, Model, parameter_count
from audio_cls.core.config import ConfigError


@pytest.mark.parametrize(
    ("config", "shape", "n_classes", "count"),
    [
        (EfficientNetLite0(), (3, 224, 224), 1000, 4_652_008),
        (EfficientNetLite0(), (1, 64, 157), 10, 3_383_242),
    ],
)
def test_parameter_counts(config: Model, shape: tuple[int, ...], n_classes: int, count: int) -> None:
    assert parameter_count(config.build(shape, n_classes)) == count


@pytest.mark.parametrize(("config", "shape", "words"), [(EfficientNetLite0(), (3, 31, 64), "at least 32")])
def test_shapes_that_vanish_in_the_strides_are_refused(config: Model, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.build(shape, 10)


# -- EfficientNet-Lite0 -------------------------------------------------------------------------------------------


def test_efficientnet_has_the_names_and_shapes_of_the_published_weights() -> None:
    state = EfficientNetLite0().build((3, 224, 224), 1000).state_dict()
    assert (
        sum(value.numel() for value in state.values()) == 4_694_073
    )  # with running statistics, as in the published file
    assert len(state) == 296
    shapes = {
        "conv_stem.weight": (32, 3, 3, 3),
        "blocks.0.depthwise_conv.weight": (32, 1, 3, 3),
        "blocks.3.expand_conv.weight": (144, 24, 1, 1),
        "blocks.3.depthwise_conv.weight": (144, 1, 5, 5),
        "blocks.10.bn2.running_var": (112,),
        "blocks.15.project_conv.weight": (320, 1152, 1, 1),
        "conv_head.weight": (1280, 320, 1, 1),
        "fc.weight": (1000, 1280),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert "blocks.0.expand_conv.weight" not in state


def test_efficientnet_pads_strided_convolutions_at_the_end() -> None:
    """TensorFlow's "SAME": of an even size and a stride of 2, a 3x3 filter is centred on the odd rows."""
    network = EfficientNetLite0().build((1, 32, 32), 2)
    stem = network.get_submodule("conv_stem")
    assert isinstance(stem, nn.Conv2d)
    with torch.no_grad():
        stem.weight.zero_()[:, :, 1, 1] = 1  # the centre
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    assert stem(ramp)[0, 0, 0].tolist() == list(range(1, 32, 2))
    assert stem(ramp[:, :, :31, :31])[0, 0, 0].tolist() == list(range(0, 31, 2))


def test_stochastic_depth_skips_clips_in_training_only() -> None:
    torch.manual_seed(0)
    network = EfficientNetLite0(stochastic_depth=0.9, dropout=0.0).build((1, 32, 32), 4)
    x = torch.randn(1, 1, 32, 32).expand(16, 1, 32, 32)
    assert network.train()(x).std(0).max() > 0  # equal clips, different paths
    assert network.eval()(x).std(0).max() < 1e-6
