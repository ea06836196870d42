"""One contract for every registered model, and the counts, heads and fits that each of them promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from audio_cls.components.models import Cnn4, DeepCnn, LogisticRegression, Mlp, Model, SmallCnn, parameter_count
from audio_cls.core.config import ConfigError

KINDS = sorted(Model.members())
SHAPES = {
    "spectrogram": (1, 64, 40),
    "image": (3, 64, 64),
    "sequence": (1, 64, 20),
    "embedding": (40,),
    "waveform": (8000,),
}
LARGE = {
    "crnn",
    "efficientnet_lite0",
    "mobilenet_v2",
    "panns",
    "residual_cnn",
    "resnet18",
    "vgg_fsd50k",
}  # tested in one domain
NARROW: dict[str, dict[str, Any]] = {  # to save time
    "crnn": {"widths": (8, 8, 8)},
    "deep_cnn": {"widths": (4, 8), "convolutions": (1, 2), "pool_frames": (4, 2), "hidden": 8},
    "mobilenet_v2": {"width_multiplier": 0.25},
    "panns": {"width": 8},
    "transformer": {"feedforward": 64},
}
CASES = [
    (kind, domain)
    for kind in KINDS
    for domain in Model.members()[kind].input_domains[: 1 if kind in LARGE else None]  # type: ignore[attr-defined]
]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def build(kind: str, shape: tuple[int, ...], n_classes: int = 7, seed: int = 0) -> nn.Module:
    config = Model.members()[kind](**NARROW.get(kind, {}))
    assert isinstance(config, Model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build(shape, n_classes)


def inputs(domain: str, batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, *SHAPES[domain], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "domain"), CASES)
def test_gives_logits_and_a_gradient_to_every_parameter(kind: str, domain: str, device: str) -> None:
    model = build(kind, SHAPES[domain]).to(device).train()
    x = inputs(domain).to(device)
    before = x.clone()
    logits = model(x)
    assert logits.shape == (4, 7)
    assert logits.dtype == torch.float32
    assert torch.equal(x, before)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("kind", "domain"), CASES)
def test_evaluation_is_deterministic_and_by_clip(kind: str, domain: str) -> None:
    model = build(kind, SHAPES[domain]).eval()
    x = inputs(domain)
    with torch.no_grad():
        logits = model(x)
        assert torch.equal(model(x), logits)
        torch.testing.assert_close(torch.cat([model(row[None]) for row in x]), logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "domain"), [c for c in CASES if c[1] in ("spectrogram", "image", "sequence")])
def test_memory_layout_does_not_matter(kind: str, domain: str) -> None:
    model = build(kind, SHAPES[domain]).eval()
    x = inputs(domain)
    with torch.no_grad():
        expected = model(x)
        model = model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(
            model(x.contiguous(memory_format=torch.channels_last)), expected, atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize(("kind", "domain"), CASES)
def test_low_precision_stays_near(kind: str, domain: str) -> None:
    model = build(kind, SHAPES[domain]).eval()
    x = inputs(domain)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = model(x)
    torch.testing.assert_close(low.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("kind", "domain"), CASES)
def test_weights_come_from_the_seed_and_survive_safetensors(kind: str, domain: str, tmp_path: Path) -> None:
    model, twin, other = (build(kind, SHAPES[domain], seed=seed) for seed in (5, 5, 6))
    for name, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    model.train()(inputs(domain))  # running statistics are part of the state
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        assert torch.equal(other.eval()(inputs(domain)), model.eval()(inputs(domain)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_shape_of_another_kind_is_refused_when_built(kind: str) -> None:
    config = Model.members()[kind]()
    assert isinstance(config, Model)
    wrong = [(), (1, 64, 40, 2), (0,), (1, 0, 40), (64, 40)]
    wrong += [
        SHAPES[domain] for domain in SHAPES if len(SHAPES[domain]) not in {len(SHAPES[d]) for d in config.input_domains}
    ]
    for shape in wrong:
        with pytest.raises(ConfigError, match=f"model.kind={kind} cannot take"):
            config.build(shape, 10)


@pytest.mark.parametrize(("kind", "domain"), CASES)
def test_a_wrong_batch_is_an_error_and_not_a_number(kind: str, domain: str) -> None:
    model = build(kind, SHAPES[domain]).eval()
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        model(torch.zeros(2, 5, 5, 5, 5))


@pytest.mark.parametrize(
    ("config", "shape", "n_classes", "count"),
    [
        (SmallCnn(), (1, 64, 251), 10, 24_170),
        (Cnn4(), (1, 64, 157), 10, 1_448_170),
        (Cnn4(), (1, 128, 517), 200, 1_642_920),
        (Cnn4(time_pooling="mean_max"), (1, 64, 157), 10, 1_448_170),
        (DeepCnn(), (1, 64, 101), 10, 755_978),
        (DeepCnn(contrast=False), (1, 64, 101), 10, 755_138),
        (DeepCnn(modulation=16), (1, 64, 101), 10, 820_282),
        (Mlp(), (1, 128, 50), 10, 25_642),
        (Mlp(hidden=(50, 50)), (200,), 15, 13_365),
        (Mlp(hidden=()), (40,), 10, 410),
        (Mlp(hidden=(8,), pooling="flatten"), (1, 64, 50), 10, 25_698),
        (LogisticRegression(), (40,), 10, 410),
    ],
)
def test_parameter_counts(config: Model, shape: tuple[int, ...], n_classes: int, count: int) -> None:
    assert parameter_count(config.build(shape, n_classes)) == count


@pytest.mark.parametrize(
    ("config", "shape"),
    [(SmallCnn(), (1, 3, 40)), (Cnn4(), (1, 64, 15)), (Cnn4(), (1, 48, 100)), (DeepCnn(), (1, 63, 100))],
)
def test_maps_too_small_for_the_pooling_are_refused(config: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="at least"):
        config.build(shape, 10)


def test_the_smallest_maps_work() -> None:
    assert SmallCnn().build((1, 4, 4), 3)(torch.randn(2, 1, 4, 4)).shape == (2, 3)
    assert Cnn4().build((1, 64, 16), 3)(torch.randn(2, 1, 64, 16)).shape == (2, 3)


def test_cnn4_tells_frequencies_apart_and_small_cnn_averages_them() -> None:
    """Two inputs that differ only in which of two distant bands holds the energy."""
    low, high = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    low[:, :, 20:24], high[:, :, 40:44] = 1, 1  # far from the edges: convolutions see the same
    small = SmallCnn().build((1, 64, 64), 4).eval()
    torch.testing.assert_close(small(low), small(high), atol=1e-5, rtol=1e-4)
    wide = Cnn4().build((1, 64, 64), 4).eval()
    assert (wide(low) - wide(high)).abs().max() > 1e-3


def test_cnn4_averages_rows_into_bands_and_takes_other_lengths() -> None:
    model = Cnn4(bands=2).build((1, 80, 64), 4)  # five rows after pooling into two bands
    matrix = model.rows_to_bands
    assert isinstance(matrix, torch.Tensor)
    torch.testing.assert_close(matrix.sum(0), torch.ones(2))
    assert (matrix > 0).sum(1).tolist() == [1] * 5
    assert model.eval()(torch.randn(2, 1, 80, 100)).shape == (2, 4)


def test_the_contrast_channel_of_the_deep_cnn_does_not_change_with_level_and_filter() -> None:
    """The second channel alone decides once the first one's weights are zero: then a gain and an offset of each band change nothing."""
    model = DeepCnn(widths=(8, 8), convolutions=(1,), pool_frames=(2,)).build((1, 32, 40), 3).eval()
    x = torch.randn(2, 1, 32, 40) * 4
    moved = x + torch.randn(2, 1, 32, 1)
    assert (model(x) - model(moved)).abs().max() > 1e-3, "the first channel sees levels"
    with torch.no_grad():
        next(model.parameters())[:, 0] = 0.0
    torch.testing.assert_close(model(x), model(moved), atol=1e-4, rtol=1e-3)
    assert (model(x) - model(torch.randn(2, 1, 32, 40))).abs().max() > 1e-3
    assert model(torch.full((2, 1, 32, 40), -80.0)).isfinite().all(), "a clip without contrast"


def test_the_modulation_branch_sees_the_spectrum_of_each_band_over_time() -> None:
    """Its waves are a windowed Fourier transform without its mean; a pulse of 11 Hz stands in its bin."""
    frames, rate = 100, 50
    model = DeepCnn(modulation=4, widths=(4,), convolutions=(1,), pool_frames=(2,)).build((1, 16, frames), 3).eval()
    assert isinstance(model.modulation, nn.Module)
    waves = model.modulation.waves
    assert isinstance(waves, torch.Tensor)
    x = torch.randn(2, 1, 16, frames)
    cosines, sines = (x @ waves).chunk(2, dim=3)
    expected = torch.fft.rfft(x * torch.hann_window(frames)).abs().square()[..., 1:] / frames
    torch.testing.assert_close(cosines.square() + sines.square(), expected, atol=1e-4, rtol=1e-4)
    pulse = torch.cos(2 * torch.pi * 11 * torch.arange(frames) / rate).expand(1, 1, 16, frames)
    cosines, sines = (pulse @ waves).chunk(2, dim=3)
    assert int((cosines.square() + sines.square())[0, 0, 0].argmax()) + 1 == 11 * frames // rate
    with pytest.raises(ConfigError, match="16 bins and 8 frames"):
        DeepCnn(modulation=4, widths=(4,), convolutions=(1,), pool_frames=(2,)).build((1, 16, 6), 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"convolutions": (1, 2)}, "convolutions: 2 values found, expected 1 or 4"),
        ({"pool_frames": (2, 2, 2)}, "pool_frames: 3 values found"),
        ({"first_kernel": (5, 6)}, "first_kernel: expected odd numbers"),
    ],
)
def test_settings_of_the_deep_cnn_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DeepCnn.parse(settings)


def test_statistics_of_the_mlp_ignore_order_and_flatten_does_not() -> None:
    x = torch.randn(2, 1, 8, 30)
    pooled = Mlp(dropout=0.0).build((1, 8, 30), 3).eval()
    torch.testing.assert_close(pooled(x), pooled(x.flip(3)))
    assert pooled(torch.zeros(2, 1, 8, 99)).shape == (2, 3)
    flat = Mlp(dropout=0.0, pooling="flatten").build((1, 8, 30), 3).eval()
    assert (flat(x) - flat(x.flip(3))).abs().max() > 1e-4


def test_every_model_is_in_the_list_of_models_and_says_its_size() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for kind, member in Model.members().items():
        if member.is_built_in():
            assert f"| `{kind}` |" in page, kind
            assert "parameters" in member.summary(), kind
            assert "Takes: " in member.summary(), kind


# -- logistic regression ------------------------------------------------------------------------------------------


def clips(n: int = 300, d: int = 12, n_classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    x = rng.normal(size=(n, d)) * rng.uniform(0.1, 50, d) + rng.normal(size=(n_classes, d))[y] * 3 + 100
    x[:, 3] = 7.0  # a feature that never changes
    return x.astype(np.float32), y


def reference(x: np.ndarray, y: np.ndarray, **settings: object) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression as Sklearn
    from sklearn.preprocessing import StandardScaler

    wide = x.astype(np.float64)
    wide = StandardScaler().fit_transform(wide)
    return Sklearn(max_iter=2000, **settings).fit(wide, y).predict_proba(wide)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("balanced", [False, True])
def test_softmax_regression_equals_scikit_learn(n_classes: int, balanced: bool) -> None:
    x, y = clips(n_classes=n_classes)
    config = LogisticRegression(c=0.5, class_weight="balanced" if balanced else "none")
    model = config.build((12,), n_classes)
    info = model.fit_closed_form(torch.from_numpy(x), torch.eye(n_classes)[y], 0)  # type: ignore[operator]
    expected = reference(x, y, C=0.5, class_weight="balanced" if balanced else None)
    found = model(torch.from_numpy(x)).softmax(1).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert info["converged"]
    assert info["task"] == "multiclass"


def test_one_against_rest_equals_scikit_learn_label_by_label() -> None:
    x, y = clips()
    targets = np.eye(4)[y]
    targets[:, 0] = x[:, 1] > np.median(x[:, 1])  # several labels a clip, or none
    targets = np.hstack([targets, np.zeros((len(x), 1)), np.ones((len(x), 1))])
    model = LogisticRegression().build((12,), 6)
    info = model.fit_closed_form(torch.from_numpy(x), torch.from_numpy(targets), 0)  # type: ignore[operator]
    found = model(torch.from_numpy(x)).sigmoid().detach().numpy()
    for label in range(4):
        np.testing.assert_allclose(found[:, label], reference(x, targets[:, label])[:, 1], atol=1e-5)
    assert found[:, 4].max() < 1e-10
    assert found[:, 5].min() > 1 - 1e-6
    assert info["task"] == "multilabel"


def test_a_class_without_a_clip_gets_a_probability_near_0() -> None:
    x, y = clips(n_classes=3)
    model = LogisticRegression().build((12,), 5)
    model.fit_closed_form(torch.from_numpy(x), torch.eye(5)[y + 1], 0)  # type: ignore[operator]
    found = model(torch.from_numpy(x)).softmax(1).detach().numpy()
    np.testing.assert_allclose(found[:, 1:4], reference(x, y), atol=1e-5)
    assert found[:, [0, 4]].max() < 1e-9


def test_one_label_a_clip_is_multilabel_when_told_so() -> None:
    x, y = clips()
    model = LogisticRegression().build((12,), 4)
    model.fit_closed_form(torch.from_numpy(x), torch.eye(4)[y], 0, task="multilabel")  # type: ignore[operator]
    found = model(torch.from_numpy(x)).sigmoid().detach().numpy()
    np.testing.assert_allclose(found[:, 2], reference(x, y == 2)[:, 1], atol=1e-5)


def test_targets_that_cannot_be_fitted_are_refused() -> None:
    x, y = clips(n=20)
    model = LogisticRegression().build((12,), 4)
    with pytest.raises(ConfigError, match="soft"):
        model.fit_closed_form(torch.from_numpy(x), torch.full((20, 4), 0.25), 0)  # type: ignore[operator]
    two = torch.eye(4)[y]
    two[7] = 1
    with pytest.raises(ConfigError, match="clip 7 has 4"):
        model.fit_closed_form(torch.from_numpy(x), two, 0, task="multiclass")  # type: ignore[operator]


def test_too_few_iterations_are_reported() -> None:
    x, y = clips()
    model = LogisticRegression(max_iter=1).build((12,), 4)
    assert not model.fit_closed_form(torch.from_numpy(x), torch.eye(4)[y], 0)["converged"]  # type: ignore[operator]
