"""Networks that follow a publication: their counts, their parameters' names and what is special to each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from audio_cls.components.models import (
    Crnn,
    EfficientNetLite0,
    MobileNetV2,
    Model,
    Panns,
    ResidualCnn,
    ResNet18,
    Transformer,
    VggFsd50k,
    WaveformCnn,
    parameter_count,
)
from audio_cls.components.models.real_frames import RealFrames
from audio_cls.core.config import ConfigError


@pytest.mark.parametrize(
    ("config", "shape", "n_classes", "count"),
    [
        (EfficientNetLite0(), (3, 224, 224), 1000, 4_652_008),
        (EfficientNetLite0(), (1, 64, 157), 10, 3_383_242),
        (Panns(layout="cnn6"), (1, 64, 1001), 527, 4_837_455),
        (Panns(), (1, 64, 1001), 527, 5_219_279),
        (Panns(layout="cnn14"), (1, 64, 1001), 527, 80_753_615),
        (ResNet18(), (3, 224, 224), 24, 11_188_824),
        (ResNet18(), (1, 96, 101), 200, 11_272_840),
        (ResidualCnn(), (1, 64, 157), 10, 174_970),
        (ResidualCnn(widths=(32, 64, 128)), (1, 64, 157), 10, 696_042),
        (MobileNetV2(), (3, 224, 224), 1000, 3_504_872),
        (MobileNetV2(), (1, 64, 157), 527, 2_898_383),
        (MobileNetV2(), (1, 64, 157), 10, 2_236_106),
        (VggFsd50k(), (1, 96, 101), 200, 265_992),
        (VggFsd50k(), (1, 64, 157), 10, 217_162),
        (Crnn(), (1, 96, 101), 200, 959_816),
        (Crnn(), (1, 64, 157), 10, 898_314),
        (WaveformCnn(layout="m3"), (32000,), 10, 220_682),
        (WaveformCnn(), (32000,), 10, 558_090),
        (WaveformCnn(layout="m11"), (32000,), 10, 1_784_202),
        (WaveformCnn(layout="m18"), (32000,), 10, 3_679_882),
        (Transformer(), (1, 128, 10), 2, 1_203_074),
        (Transformer(), (1, 64, 157), 10, 1_195_914),
    ],
)
def test_parameter_counts(config: Model, shape: tuple[int, ...], n_classes: int, count: int) -> None:
    assert parameter_count(config.build(shape, n_classes)) == count


@pytest.mark.parametrize(
    ("config", "shape", "words"),
    [
        (EfficientNetLite0(), (3, 31, 64), "at least 32"),
        (Panns(width=2), (1, 64, 15), "at least 16"),
        (Panns(layout="cnn14", width=2), (1, 64, 31), "at least 32"),
        (ResNet18(), (3, 64, 31), "at least 32"),
        (ResidualCnn(), (1, 3, 64), "at least 4"),
        (MobileNetV2(), (3, 64, 31), "at least 32"),
        (VggFsd50k(), (1, 3, 64), "at least 4"),
        (Crnn(), (1, 47, 64), "at least 48 bins and 1 frames"),
        (Crnn(time_pooling=(2, 2, 2)), (1, 64, 7), "at least 48 bins and 8 frames"),
        (WaveformCnn(), (1023,), "at least 1024"),
        (Transformer(patch_frames=4), (1, 8, 3), "at least 4 frames"),
    ],
)
def test_inputs_too_small_for_the_pooling_are_refused(config: Model, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.build(shape, 10)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (Panns(width=2), (1, 16, 16)),
        (Panns(layout="cnn14", width=2), (2, 33, 47)),
        (Panns(layout="cnn6", width=2), (3, 16, 16)),
        (ResidualCnn(widths=(4, 8), blocks=1), (1, 2, 2)),
        (MobileNetV2(width_multiplier=0.1), (1, 32, 32)),
        (VggFsd50k(), (1, 4, 4)),
        (Crnn(widths=(4, 4), frequency_pooling=(2, 2), time_pooling=(1, 1), hidden=3), (2, 4, 1)),
        (WaveformCnn(layout="m3", kernel=81), (64,)),
        (WaveformCnn(kernel=4), (1024,)),
        (WaveformCnn(layout="m11"), (1024,)),
        (WaveformCnn(layout="m18"), (1027,)),
        (Transformer(width=2, heads=1, feedforward=1, layers=1), (1, 1, 1)),
        (Transformer(width=8, feedforward=8, patch_frames=4, patch_bins=16), (2, 64, 23)),
    ],
)
def test_the_smallest_inputs_work(config: Model, shape: tuple[int, ...]) -> None:
    assert config.build(shape, 3).train()(torch.randn(2, *shape)).shape == (2, 3)


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


# -- names of published weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "shape", "n_values", "names"),
    [
        (
            Panns(layout="cnn6"),
            (1, 64, 101),
            4 * 6 + 5 + 4,
            {
                "bn0.running_mean": (64,),
                "conv_block1.conv1.weight": (64, 1, 5, 5),
                "conv_block4.bn1.weight": (512,),
                "fc1.weight": (512, 512),
                "fc_audioset.bias": (7,),
            },
        ),
        (
            Panns(),
            (1, 64, 101),
            8 * 6 + 5 + 4,
            {
                "conv_block1.conv2.weight": (64, 64, 3, 3),
                "conv_block4.bn2.running_var": (512,),
            },
        ),
        (
            ResNet18(),
            (3, 64, 64),
            122,
            {
                "conv1.weight": (64, 3, 7, 7),
                "layer1.0.conv1.weight": (64, 64, 3, 3),
                "layer2.0.downsample.0.weight": (128, 64, 1, 1),
                "layer2.0.downsample.1.running_mean": (128,),
                "layer4.1.bn2.bias": (512,),
                "fc.weight": (7, 512),
            },
        ),
        (
            MobileNetV2(),
            (3, 64, 64),
            314,
            {
                "features.0.0.weight": (32, 3, 3, 3),
                "features.1.conv.0.0.weight": (32, 1, 3, 3),
                "features.1.conv.1.weight": (16, 32, 1, 1),
                "features.1.conv.2.weight": (16,),
                "features.2.conv.1.0.weight": (96, 1, 3, 3),
                "features.17.conv.2.weight": (320, 960, 1, 1),
                "features.18.1.running_var": (1280,),
                "classifier.1.weight": (7, 1280),
            },
        ),
    ],
)
def test_parameters_have_the_names_and_shapes_of_the_published_weights(
    config: Model, shape: tuple[int, ...], n_values: int, names: dict[str, tuple[int, ...]]
) -> None:
    state = config.build(shape, 7).state_dict()
    assert {name: tuple(state[name].shape) for name in names} == names
    assert len(state) == n_values


# -- what is special to each --------------------------------------------------------------------------------------


def test_panns_normalise_each_band_and_keep_the_published_orientation() -> None:
    network = Panns(layout="cnn6", width=2, dropout=0.0, head_dropout=0.0).build((1, 16, 32), 3)
    x = torch.randn(8, 1, 16, 32) * torch.arange(1.0, 17)[:, None] + 100
    expected = network.train()(x)
    torch.testing.assert_close(
        network(x * 7 - 3), expected, atol=1e-3, rtol=1e-3
    )  # the batch norm undoes scale and offset
    block = network.get_submodule("conv_block1.conv1")
    assert isinstance(block, nn.Conv2d)
    seen: list[torch.Size] = []
    block.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    network(x)
    assert seen == [torch.Size([8, 1, 32, 16])]  # (batch, channels, frames, n_mels)


def test_a_residual_block_without_weights_is_the_identity() -> None:
    network = ResidualCnn(widths=(4,), blocks=1).build((1, 8, 8), 2).eval()
    block = network.get_submodule("blocks.0")
    x = torch.rand(2, 4, 8, 8)
    with torch.no_grad():
        for parameter in block.get_submodule("bn2").parameters():
            parameter.zero_()
        torch.testing.assert_close(block(x), x)


def test_crnn_sees_the_order_of_frames_and_takes_other_lengths() -> None:
    torch.manual_seed(0)
    network = (
        Crnn(widths=(8,), frequency_pooling=(8,), time_pooling=(2,), hidden=16, kernel=1).build((1, 16, 40), 4).eval()
    )
    x = torch.randn(2, 1, 16, 40)
    shuffled = x[:, :, :, torch.cat([torch.arange(20, 40), torch.arange(20)])]
    assert (network(x) - network(shuffled)).abs().max() > 1e-5
    torch.testing.assert_close(network(x[:1]), network(x)[:1])
    assert network(torch.randn(1, 1, 16, 11)).shape == (1, 4)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Crnn(frequency_pooling=(4, 4)), "model.frequency_pooling=.*one factor for each of the 3"),
        (Crnn(time_pooling=(2, 2, 2, 2)), "model.time_pooling=.*one factor for each of the 3"),
        (Crnn(kernel=4), "model.kernel=4: must be odd"),
        (Transformer(patch_bins=7), "model.patch_bins=7: 64 bands .* Allowed: 1, 2, 4, 8, 16, 32, 64, or none"),
        (Transformer(width=100, heads=3), "model.width=100: must be even and a multiple of model.heads=3"),
        (Transformer(width=5, heads=5), "model.width=5: must be even"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: Model, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.build((1, 64, 40), 10)


def test_the_waveform_cnn_gives_one_frame_for_1024_samples() -> None:
    network = WaveformCnn(layout="m11").build((8192,), 3).eval()
    assert network.get_submodule("blocks")(torch.randn(1, 1, 8192)).shape == (1, 512, 8)


def small_transformer(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = {"width": 16, "feedforward": 32, "layers": 1} | settings
    return Transformer(**settings).build((1, 8, 24), 4).eval()


def test_positions_tell_the_transformer_the_order_of_frames() -> None:
    x = torch.randn(2, 1, 8, 24)
    torch.testing.assert_close(small_transformer(positions="none")(x), small_transformer(positions="none")(x.flip(3)))
    for positions in ("sinusoidal", "learned"):
        network = small_transformer(positions=positions)
        assert (network(x) - network(x.flip(3))).abs().max() > 1e-3
    sinusoidal = small_transformer()
    assert sinusoidal(torch.randn(2, 1, 8, 50)).shape == (2, 4)  # any length


def test_patches_of_the_transformer_are_rows_and_columns_with_positions() -> None:
    network = small_transformer(patch_frames=5, patch_bins=4)
    x = torch.randn(2, 1, 8, 24)
    seen: list[torch.Size] = []
    network.get_submodule("layers.0").register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    logits = network(x)
    assert seen == [torch.Size([2, 8, 16])]  # two rows, four columns: the last four frames fill no patch
    x[:, :, :, 20:] = 7
    assert torch.equal(network(x), logits)
    assert (network(x.flip(2)) - logits).abs().max() > 1e-3


def test_attention_of_the_transformer_equals_that_of_pytorch() -> None:
    network = small_transformer(dropout=0.0)
    ours = network.get_submodule("layers.0").double()
    theirs = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True, dtype=torch.float64)
    names = {"in_proj.": "self_attn.in_proj_", "out_proj.": "self_attn.out_proj."}
    state = {}
    for name, value in ours.state_dict().items():
        prefix = next((p for p in names if name.startswith(p)), "")
        state[names.get(prefix, "") + name.removeprefix(prefix)] = value
    theirs.load_state_dict(state)
    tokens = torch.randn(3, 7, 16, dtype=torch.float64)
    real = torch.arange(7) < torch.tensor([[7], [4], [1]])
    torch.testing.assert_close(ours(tokens, real), theirs(tokens, src_key_padding_mask=~real))


@pytest.mark.parametrize("patch_frames", [1, 3])
def test_the_transformer_leaves_out_padding_and_markers(patch_frames: int) -> None:
    network = small_transformer(patch_frames=patch_frames, patch_bins=4)
    for part in network.modules():
        if isinstance(part, RealFrames):
            part.learn(torch.tensor([0.0, -1.0, -2.0])[:, None].expand(3, 8))
    x = torch.randn(2, 1, 8, 24)
    x[:, :, :, 0], x[0, :, :, 23], x[1, :, :, 9] = -1, -2, -2
    x[1, :, :, 10:] = 0
    logits = network(x)
    whole = 24 if patch_frames == 1 else 12
    torch.testing.assert_close(network(x[1:, :, :, :whole]), logits[1:])
    torch.testing.assert_close(network(torch.cat([x[:1], x[:1]], 0))[:1], logits[:1])
    assert torch.isfinite(network(torch.zeros(1, 1, 8, 24))).all()  # nothing but padding
