"""Files of weights with the names and shapes of torchvision and PANNs: loaded whole, and the network then gives their outputs.

Figures of torchvision 0.29.2 and of torchlibrosa 0.1.0 (PANNs' features) were computed once with these packages, on the same
weights and inputs as here; neither is needed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from audio_cls.components.models import MobileNetV2, Model, Panns, ResNet18
from audio_cls.components.panns_features import PannsLogMel
from audio_cls.components.weights import FileWeights, Match, Weights, load_weights, read_tensors
from audio_cls.core.config import ConfigError

State = dict[str, Tensor]


def waves(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers from -1 to 1 that are the same on every machine."""
    n = int(np.prod(shape))
    return torch.from_numpy(np.sin(0.7 * np.arange(n) + 0.01 * np.arange(n) ** 1.5 + seed)).float().reshape(shape)


def noise(n: int) -> Tensor:
    """White noise of n samples from -1 to 1 that is the same on every machine."""
    k = np.arange(n, dtype=np.int64)
    return torch.from_numpy((k * k * k * 7919 + k * k * 104_729 + k) % 65_537 / 32_768 - 1).float()


def filled(shapes: dict[str, tuple[int, ...]]) -> State:
    """Weights of these names and shapes, of a size that keeps activations in range, with running statistics that matter."""
    state: State = {}
    for seed, (name, shape) in enumerate(sorted(shapes.items())):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            state[name] = 1 + 0.3 * waves(shape, seed)
        elif len(shape) > 1:
            state[name] = waves(shape, seed) * (4 / np.prod(shape[1:])) ** 0.5
        else:
            state[name] = 0.1 * waves(shape, seed)
    return state


def loaded(
    config: Model, shape: tuple[int, ...], tensors: State, kind: str, n_classes: int, **settings: Any
) -> tuple[nn.Module, Match]:
    weights = Weights.parse({"kind": kind, "file": "weights.pth", **settings})
    assert isinstance(weights, FileWeights)
    model = config.build(shape, n_classes)
    match = load_weights(model, weights, tensors, "weights.pth")
    return model.eval(), match


def statuses(match: Match) -> dict[str, int]:
    found = [row.status for row in match.rows]
    return {status: found.count(status) for status in dict.fromkeys(found)}


# -- torchvision ----------------------------------------------------------------------------------------------------------

TORCHVISION = [
    (
        ResNet18(),
        11_699_132,
        "867b8d8ae95f5a28c42c5b8a8409d5869ea42922a87e779dc263f79d0c746ff2",
        [2.49626, -1.9093, 2.73846, -0.68545],
    ),
    (
        MobileNetV2(),
        3_539_036,
        "b37e2a9130e6341bc6158c07707da3e63bbde46fdbffb1ff4d42ea45ff281e7e",
        [8.13143, 0.42308, 4.39446, -1.21264],
    ),
]


@pytest.mark.parametrize(("config", "n_values", "names", "logits"), TORCHVISION, ids=["resnet18", "mobilenet_v2"])
def test_torchvision(config: Model, n_values: int, names: str, logits: list[float]) -> None:
    """Names and shapes are torchvision's, with its 1000 outputs; so are the outputs on a picture."""
    shapes = {name: tuple(value.shape) for name, value in config.build((3, 64, 64), 1000).state_dict().items()}
    listed = "\n".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
    assert hashlib.sha256(listed.encode()).hexdigest() == names
    state = filled(shapes)
    assert sum(value.numel() for value in state.values()) == n_values
    model, match = loaded(config, (3, 64, 64), state, "torchvision", 1000, head="loaded")
    assert statuses(match) == {"matched": len(shapes)}
    picture = waves((1, 3, 64, 64), 0)
    with torch.no_grad():
        found = model(picture)[0, :4].tolist()
        grey, _ = loaded(config, (1, 64, 64), state, "torchvision", 1000, head="loaded")
        expected, on_one_channel = model(picture[:, :1].expand(-1, 3, -1, -1)), grey(picture[:, :1])
    assert found == pytest.approx(logits, abs=2e-3)  # rounding of 50 layers; logits have a deviation of 2 and 5
    torch.testing.assert_close(on_one_channel, expected, atol=2e-3, rtol=0)


def test_torchvisions_first_files(tmp_path: Path) -> None:
    """Written by PyTorch 0.x: parameters instead of tensors, the former format, no counters of the batch norms."""
    shapes = {name: tuple(value.shape) for name, value in MobileNetV2().build((3, 64, 64), 1000).state_dict().items()}
    state = {name: value for name, value in filled(shapes).items() if not name.endswith("num_batches_tracked")}
    written = {name: value if "running" in name else nn.Parameter(value) for name, value in state.items()}
    torch.save(written, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = read_tensors(tmp_path / "old.pth", "old.pth")
    model, match = loaded(MobileNetV2(), (1, 64, 64), found, "torchvision", 10, frozen="all")
    assert match.share == 1.0
    assert statuses(match) == {"first layer": 1, "missing": 52, "matched": len(state) - 3, "new head": 2}
    kept = model.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in state.items() if kept[name].shape == value.shape)


# -- PANNs ----------------------------------------------------------------------------------------------------------------

# kernel, convolutions in a block, blocks; parameters without the layers of the spectrogram, as published
LAYOUTS = {"cnn6": (5, 1, 4, 4_837_455), "cnn10": (3, 2, 4, 5_219_279), "cnn14": (3, 2, 6, 80_753_615)}
FRONT_END = (
    "spectrogram_extractor.stft.conv_real.weight",
    "spectrogram_extractor.stft.conv_imag.weight",
    "logmel_extractor.melW",
)


def panns_shapes(layout: str, width: int = 64) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of PANNs' `pytorch/models.py` (Cnn6, Cnn10, Cnn14) at 32 kHz, from a first block of `width`."""
    kernel, convolutions, blocks, _ = LAYOUTS[layout]
    shapes: dict[str, tuple[int, ...]] = {
        FRONT_END[0]: (513, 1, 1024),
        FRONT_END[1]: (513, 1, 1024),
        FRONT_END[2]: (513, 64),
    }

    def batch_norm(name: str, n: int) -> None:
        shapes.update({f"{name}.{key}": (n,) for key in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    batch_norm("bn0", 64)
    before = 1
    for i in range(blocks):
        after = width * 2**i
        for j in range(convolutions):
            shapes[f"conv_block{i + 1}.conv{j + 1}.weight"] = (after, after if j else before, kernel, kernel)
            batch_norm(f"conv_block{i + 1}.bn{j + 1}", after)
        before = after
    shapes |= {"fc1.weight": (before, before), "fc1.bias": (before,)}
    return shapes | {"fc_audioset.weight": (527, before), "fc_audioset.bias": (527,)}


def panns_logits(state: State, layout: str, x: Tensor) -> Tensor:
    """Return what PANNs' program computes from log-mel bands (batch, 1, frames, 64) in evaluation mode, before its sigmoid."""
    _, convolutions, blocks, _ = LAYOUTS[layout]

    def batch_norm(name: str, y: Tensor) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(y, mean, var, weight, bias)

    x = batch_norm("bn0", x.transpose(1, 3)).transpose(1, 3)
    for i in range(1, blocks + 1):
        for j in range(1, convolutions + 1):
            weight = state[f"conv_block{i}.conv{j}.weight"]
            x = functional.conv2d(x, weight, padding=weight.shape[-1] // 2)
            x = functional.relu(batch_norm(f"conv_block{i}.bn{j}", x))
        if i < 6:
            x = functional.avg_pool2d(x, 2)
    x = x.mean(dim=3)
    x = x.max(dim=2).values + x.mean(dim=2)
    x = functional.relu(functional.linear(x, state["fc1.weight"], state["fc1.bias"]))
    return functional.linear(x, state["fc_audioset.weight"], state["fc_audioset.bias"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_panns_files_fit_whole(layout: str) -> None:
    """At the published width, by shapes alone: CNN14's file has 327 MB."""
    shapes = panns_shapes(layout)
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
        _, match = loaded(Panns(layout=layout), (1, 64, 101), tensors, "panns", 10)
    learned = [name for name in shapes if name not in FRONT_END and name.split(".")[-1] in ("weight", "bias")]
    assert sum(tensors[name].numel() for name in learned) == LAYOUTS[layout][3]
    assert match.share == 1.0
    assert statuses(match) == {"matched": len(shapes) - 5, "new head": 2, "ignored": 3}
    assert {row.in_file for row in match.rows if row.status == "ignored"} == set(FRONT_END)
    assert next(row.block for row in match.rows if row.name == "bn0.running_mean") == "conv_block1"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_panns_outputs(layout: str) -> None:
    """The network with a file's weights computes what PANNs' program does, from log-mel bands in decibels on."""
    state = filled(panns_shapes(layout, width=4))
    state |= {"bn0.running_mean": torch.linspace(-60, -20, 64), "bn0.running_var": torch.linspace(100, 300, 64)}
    model, match = loaded(Panns(layout=layout, width=4), (1, 64, 70), state, "panns", 527, head="loaded")
    assert statuses(match) == {"matched": len(state) - 3, "ignored": 3}
    decibels = -40 + 25 * waves((2, 1, 70, 64), 5)
    with torch.no_grad():
        expected = panns_logits(state, layout, decibels)
        found = model(decibels.transpose(2, 3))
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("rate", "frames", "values"),
    [
        (32000, 51, [-17.804, 5.736, 8.046, 5.065, 5.4602]),
        (16000, 51, [3.916, 2.257, 4.062, 2.976, 2.1551]),
        (8000, 51, [-6.948, -2.582, -3.367, -5.305, -1.2184]),
    ],
)
def test_panns_features_equal_those_of_torchlibrosa(rate: int, frames: int, values: list[float]) -> None:
    found = PannsLogMel().build(rate)(noise(rate // 2)[None])[0, 0].T  # (frames, bands)
    assert found.shape == (frames, 64)
    at = [(0, 0), (7, 20), (25, 40), (50, 63)]
    assert [found[i, j].item() for i, j in at] == pytest.approx(values[:4], abs=0.01)
    assert found.mean().item() == pytest.approx(values[4], abs=0.01)


def test_panns_features_are_refused_at_other_rates() -> None:
    with pytest.raises(
        ConfigError,
        match=r"32,000, 16,000 or 8,000 Hz, the data have 44,100. Prepare the corpus with --sample-rate 32000",
    ):
        PannsLogMel().build(44100)
    by_hand = PannsLogMel(n_fft=1024, hop_length=441, f_max=14000.0)
    assert by_hand.build(44100).frames(44100) == 101


def test_panns_files_hold_the_state_of_their_sampler(tmp_path: Path) -> None:
    """As PANNs' training program writes them: arrays of NumPy beside the weights, which are passed over."""
    state = filled({name: shape for name, shape in panns_shapes("cnn6", width=2).items() if name not in FRONT_END})
    sampler = {"indexes_per_class": [np.arange(5), np.arange(3)], "queue": [1, 2], "best": np.float64(0.343)}
    for name, zipped in (("old.pth", False), ("new.pth", True)):
        content = {"iteration": 600_000, "model": state, "sampler": sampler}
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        found = read_tensors(tmp_path / name, name)
        assert found.keys() == state.keys()
        assert all(torch.equal(value, state[key]) for key, value in found.items())
