"""One contract for every registered augmentation, and what each of them promises beside it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_cls.components.augment import (
    Augment,
    Augmentation,
    BetweenClass,
    CutMix,
    Equalizer,
    Gain,
    Mixup,
    Noise,
    SpecAugment,
    TimeRoll,
    TimeShift,
    build_augment,
)
from audio_cls.components.augment.waveform_mix import sound_level
from audio_cls.core.config import ConfigError
from audio_cls.experiment import Experiment

RATE, HOP = 16000, 256
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
KINDS = sorted(kind for kind, member in Augmentation.members().items() if member.stands_alone)
SHAPES = {"waveform": (3000,), "spectrogram": (1, 64, 100), "mix": (1, 64, 100), "sequence": (1, 128, 10)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_for(config: Augmentation, batch: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, *SHAPES[config.domain], generator=generator(seed)).to(dtype)


def apply(config: Augmentation, x: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    op = config.build(RATE, HOP)
    if config.stage not in ("waveform_mix", "mix"):
        return op(x, random)
    y = torch.nn.functional.one_hot(torch.arange(len(x)) % 5, 5).float().to(x.device)
    before = y.clone()
    mixed, soft = op(x, y, random)
    assert torch.equal(y, before)
    assert soft.shape == y.shape
    assert soft.dtype == y.dtype
    torch.testing.assert_close(soft.sum(1), torch.ones(len(x), device=x.device))
    return mixed


def make(kind: str, **fields: Any) -> Augmentation:
    config = Augmentation.members()[kind].parse(fields)
    assert isinstance(config, Augmentation)
    return config


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_shape_dtype_device_and_input_are_kept(kind: str, batch: int, device: str) -> None:
    config = make(kind, p=1.0)
    for dtype in (torch.float32, torch.float16):
        x = batch_for(config, batch, dtype=dtype).to(device)
        before = x.clone()
        out = apply(config, x, generator())
        assert (out.shape, out.dtype, out.device) == (x.shape, x.dtype, x.device)
        assert torch.equal(x, before)
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_and_nothing_else_decides(kind: str) -> None:
    config = make(kind, p=1.0)
    x = batch_for(config, 16)
    torch.manual_seed(1)
    first = apply(config, x, generator(3))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(apply(config, x, generator(3)), first)
    assert torch.equal(torch.get_rng_state(), state), "drew from the global generator"
    assert not torch.equal(apply(config, x, generator(4)), first)
    assert not torch.equal(first, x), "did nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_p_is_the_share_of_clips_changed(kind: str) -> None:
    untouched = make(kind, p=0.0)
    x = batch_for(untouched, 16)
    assert torch.equal(apply(untouched, x, generator()), x)
    config = make(kind, p=0.25)
    x = batch_for(config, 400)
    changed = float((apply(config, x, generator()) != x).flatten(1).any(1).float().mean())
    assert 0.15 < changed < 0.35


@pytest.mark.parametrize("kind", KINDS)
def test_each_clip_draws_for_itself(kind: str) -> None:
    config = make(kind, p=1.0)
    one = batch_for(config, 1)
    x = one.repeat(16, *[1] * (one.dim() - 1))
    if config.stage in ("waveform_mix", "mix"):
        x = x * torch.arange(1, 17).view(-1, *[1] * (x.dim() - 1))
    out = apply(config, x, generator()).flatten(1)
    assert len(torch.unique(out, dim=0)) > 8


@pytest.mark.parametrize("kind", [k for k in KINDS if make(k).domain != "waveform"])
def test_memory_layout_does_not_matter(kind: str) -> None:
    config = make(kind, p=1.0)
    x = batch_for(config, 8)
    expected = apply(config, x, generator())
    frames_first = x.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (x.contiguous(memory_format=torch.channels_last), frames_first):
        assert torch.equal(apply(config, other, generator()), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_cuda_draws_as_the_cpu_does(kind: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA")
    if kind == "noise":
        pytest.skip("bulk noise comes from the device's own generator")
    config = make(kind, p=0.7)
    x = batch_for(config, 16)
    torch.testing.assert_close(apply(config, x.cuda(), generator()).cpu(), apply(config, x, generator()))


@pytest.mark.parametrize("kind", KINDS)
def test_domain_is_declared(kind: str) -> None:
    assert make(kind).domain in SHAPES


@pytest.mark.parametrize(
    ("kind", "domains"),
    [
        ("gain", "waveform"),
        ("noise", "waveform"),
        ("time_shift", "waveform"),
        ("equalizer", "waveform"),
        ("time_stretch", "waveform"),
        ("pitch_shift", "waveform"),
        ("speed", "waveform"),
        ("specaugment", "spectrogram sequence image"),
        ("time_roll", "spectrogram sequence image"),
        ("mixup", "waveform spectrogram sequence image embedding"),
        ("between_class", "waveform"),
        ("cutmix", "waveform spectrogram sequence image"),
        ("offset", "sequence"),
        ("average_positives", "sequence"),
    ],
)
def test_each_makes_sense_for_some_domains(kind: str, domains: str) -> None:
    every = ("waveform", "spectrogram", "sequence", "image", "embedding")
    assert " ".join(domain for domain in every if make(kind).takes(domain)) == domains


@pytest.mark.parametrize("kind", ["warp", "band_gain"])
def test_what_changes_frequencies_is_refused_for_cepstral_coefficients(kind: str) -> None:
    changed = Experiment().override({"features.kind": "log_mel", f"augment.{kind}": "on"}).check()
    with pytest.raises(ConfigError, match=rf"augment.{kind} changes frequencies, but the rows of features.kind=mfcc"):
        changed.override({"features.kind": "mfcc"}).check()


def test_each_stands_in_the_table_of_the_documentation() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "augmentations.md").read_text(encoding="utf-8")
    listed = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert listed == {kind for kind, member in Augmentation.members().items() if member.is_built_in()}


def test_the_benchmark_of_costs_has_a_row_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    benchmark = importlib.import_module("augmentations")
    rows = {**benchmark.operations("spectrogram", 16000, 160), **benchmark.operations("sequence", 1, 1)}
    assert {row.partition(" (")[0] for row in rows} >= set(Augmentation.members())


def test_what_has_no_meaning_for_quantised_pca_is_refused_unless_forced() -> None:
    for kind in KINDS:
        reason = make(kind).refusal("quantised PCA")
        assert (reason is not None) == (kind in ("offset", "average_positives")), kind
        assert make(kind).refusal("") is None
        if reason is not None:
            assert make(kind, force=True).refusal("quantised PCA") is None
            assert make(kind, force=True).to_dict()["force"] is True


def test_an_offset_is_one_number_a_clip() -> None:
    x = batch_for(make("offset"), 8)
    moved = apply(make("offset", range=(0.2, 0.4)), x, generator()) - x
    assert float((moved.flatten(1).amax(1) - moved.flatten(1).amin(1)).abs().max()) < 1e-6
    assert 0.2 <= float(moved.min()) < float(moved.max()) <= 0.4


def test_positives_are_averaged_with_a_clip_of_a_common_label_only() -> None:
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 3, 2)
    y = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    op = make("average_positives", p=1.0).build(RATE, HOP)
    mixed, targets = op(x, y, generator())
    assert mixed[:, 0, 0, 0].tolist() == [0.5, 0.5, 2.0, 3.0]
    assert targets.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_the_set_has_a_canonical_order_and_one_row_of_keys() -> None:
    both = Augment.parse({"noise": {}, "time_shift": {"p": 0.5}, "mixup": "on"})
    assert [item.kind for item in both.items] == ["time_shift", "noise", "mixup"]
    assert both == Augment.parse({"mixup": {}, "time_shift": {"p": 0.5}, "noise": "on"})
    assert both.flatten().keys() == Augment().flatten().keys()
    with pytest.raises(ConfigError, match="specaugment"):
        Augment.parse({"spec_augment": {}})


# -- each of them -------------------------------------------------------------------------------------------------


def test_circular_shift_is_a_roll_and_zero_shift_leaves_silence() -> None:
    x = torch.arange(1, 2001).float().repeat(32, 1)
    circular = TimeShift(max_seconds=0.05).build(RATE, HOP)(x, generator())
    silent = TimeShift(max_seconds=0.05, fill="zero").build(RATE, HOP)(x, generator())
    seen = set()
    for rolled, zeroed in zip(circular, silent, strict=True):
        by = int((rolled == 1).nonzero())
        by = by - 2000 if by > 1000 else by
        seen.add(by)
        assert abs(by) <= 800
        assert torch.equal(rolled, x[0].roll(by))
        expected = x[0].roll(by)
        expected[: max(by, 0)] = 0
        if by < 0:
            expected[by:] = 0
        assert torch.equal(zeroed, expected)
    assert min(seen) < -300
    assert max(seen) > 300


def test_gain_stays_in_its_range() -> None:
    x = torch.ones(500, 4)
    db = 20 * torch.log10(Gain(db=(-12.0, 3.0)).build(RATE, HOP)(x, generator())[:, 0])
    assert -12.001 <= float(db.min()) < -11
    assert 2.5 < float(db.max()) <= 3.001


def test_noise_has_the_asked_ratio_or_amplitude() -> None:
    x = torch.sin(torch.arange(40000) * 0.05).repeat(6, 1) * torch.tensor([1, 0.1, 0.5, 0.01, 1, 0.0])[:, None]
    added = Noise(snr_db=(20.0, 20.0), p=1.0).build(RATE, HOP)(x, generator()) - x
    snr = 10 * torch.log10(x[:5].square().mean(1) / added[:5].square().mean(1))
    torch.testing.assert_close(snr, torch.full((5,), 20.0), atol=0.15, rtol=0)
    assert (added[5] == 0).all()
    assert added.mean(1).abs().max() < 2e-3
    amplitude = Noise(amplitude=(0.005, 0.005), p=1.0).build(RATE, HOP)(x, generator()) - x
    torch.testing.assert_close(amplitude.std(1), torch.full((6,), 0.005), atol=2e-4, rtol=0)


def test_an_equalizer_changes_levels_by_frequency_and_moves_nothing() -> None:
    x = torch.randn(200, 4000, generator=generator(1))
    x[:, 1500:2500] = 0
    out = Equalizer(db=(-9.0, 9.0), bands=4, p=1.0).build(RATE, HOP)(x, generator())
    db = 20 * (torch.fft.rfft(out[:, :1500]).abs() / torch.fft.rfft(x[:, :1500]).abs()).log10()
    at = torch.fft.rfftfreq(1500, 1 / RATE)
    top = db[:, (at > 7500) & (at < 7900)].median(1).values
    assert -9.5 < float(top.min()) < -6
    assert 6 < float(top.max()) < 9.5
    low = db[:, (at > 90) & (at < 150)].median(1).values
    assert abs(float(torch.corrcoef(torch.stack([low, top]))[0, 1])) < 0.2, "each band draws for itself"
    assert out[:, 1900:2100].abs().max() < 0.01, "silence stays silent"
    flat = Equalizer(db=(3.0, 3.0), p=1.0).build(RATE, HOP)(x, generator())
    torch.testing.assert_close(flat, x * 10 ** (3 / 20), atol=1e-4, rtol=1e-4)


# -- choices among them -------------------------------------------------------------------------------------------


def test_exactly_k_of_those_chosen_among_are_applied() -> None:
    louder = {"gain": {"db": [20, 20]}, "equalizer": {"db": [40, 40], "p": 1.0}, "speed": {"p": 0.0}}
    augment = Augment.parse({**louder, "specaugment": {}, "choose": {"k": 2}})
    built = build_augment(augment, RATE, HOP)
    assert len(built.waveform) == 1
    assert len(built.features) == 1
    x = torch.sin(torch.arange(400) * 0.3).repeat(600, 1)
    before = x.clone()
    db = (20 * (built.waveform[0](x, generator()).std(1) / x.std(1)).log10()).round()
    assert torch.equal(x, before)
    drawn, counts = db.unique(return_counts=True)
    assert drawn.tolist() == [20, 40, 60], "of gain, equalizer and an idle one two are drawn"
    assert counts.min() > 150
    assert torch.equal(built.waveform[0](x, generator()), built.waveform[0](x, generator()))


def test_features_are_chosen_among_where_they_are_named() -> None:
    augment = Augment.parse(
        {"specaugment": {}, "time_roll": {}, "gain": {}, "choose": {"among": ["specaugment", "time_roll"]}}
    )
    built = build_augment(augment, RATE, HOP)
    assert [len(ops) for ops in (built.waveform, built.features)] == [1, 1]
    x = torch.arange(1.0, 101).expand(400, 1, 8, 100)
    out = built.features[0](x, generator())
    rolled = (out.sort(-1).values == x).all((1, 2, 3))
    masked = (out == 0).any(-1).any(-1).any(-1)
    assert not (rolled & masked).any()
    assert 120 < int(masked.sum()) < 280


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (
            {"choose": {"k": 3}, "gain": {}, "noise": {}},
            r"k=3: there are 2 augmentations to choose among \(gain, noise\)",
        ),
        ({"choose": {}}, "none that changes waveforms"),
        ({"choose": {"among": ["noize"]}, "noise": {}}, "Did you mean 'noise'"),
        ({"choose": {"among": ["noise"]}}, r"not in this experiment: add augment\.noise=on"),
        ({"choose": {"among": ["noise", "mixup"]}, "noise": {}, "mixup": {}}, "features that are mixed"),
        (
            {"choose": {"among": ["noise", "time_roll"]}, "noise": {}, "time_roll": {}},
            "all of waveforms or all of features",
        ),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(augment: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Experiment.parse({"augment": augment}).check()


def test_time_roll_is_a_roll_within_its_reach() -> None:
    x = torch.arange(200).float().expand(64, 1, 3, 200)
    for seconds, most in ((0.16, 10), (None, 100)):
        out = TimeRoll(max_seconds=seconds).build(RATE, HOP)(x, generator())
        shifts = (out == 0).float().argmax(-1)
        assert (shifts == shifts[:, :, :1]).all(), "all bands of a clip move together"
        by = [n - 200 if n > 100 else n for n in shifts[:, 0, 0].tolist()]
        assert max(abs(n) for n in by) <= most
        assert max(abs(n) for n in by) > most * 0.8
        for row, n in zip(out, by, strict=True):
            assert torch.equal(row, x[0].roll(n, -1))


def test_masks_have_the_asked_number_and_widths_uniformly() -> None:
    x = torch.ones(4000, 1, 40, 120)
    out = SpecAugment(n_time_masks=1, time_mask_frames=10, n_freq_masks=0).build(RATE, HOP)(x, generator())
    assert (out == out[:, :, :1]).all(), "a time mask spans all bins"
    masked = (out[:, 0, 0] == 0).int()
    width = masked.sum(1)
    counts = torch.bincount(width, minlength=11)
    assert len(counts) == 11
    assert counts.min() > 4000 / 11 * 0.75
    edges = (masked.diff(dim=1, prepend=torch.zeros(4000, 1, dtype=torch.int32)) == 1).sum(1)
    assert edges.max() == 1, "one mask, in one piece"
    assert (masked.float().mean(0)[20:100] - 5 / 115).abs().max() < 0.02
    both = SpecAugment(n_time_masks=3, time_mask_frames=7, n_freq_masks=2, freq_mask_bins=5).build(RATE, HOP)(
        x, generator()
    )[:, 0]
    assert (both == 0).all(1).sum(1).max() <= 21
    assert (both == 0).all(2).sum(1).max() <= 10
    assert (both == 0).all(1).sum(1).max() > 14


def test_masks_wider_than_the_clip_leave_half_of_it_and_none_changes_nothing() -> None:
    x = torch.ones(50, 1, 8, 6)
    out = SpecAugment(n_time_masks=1, time_mask_frames=500, n_freq_masks=1, freq_mask_bins=500).build(RATE, HOP)(
        x, generator()
    )
    assert out.sum((1, 2, 3)).min() >= 12
    assert torch.equal(SpecAugment(n_time_masks=0, n_freq_masks=0).build(RATE, HOP)(x, generator()), x)


def test_layers_of_masks_are_each_laid_with_their_own_probability() -> None:
    x = torch.ones(2000, 1, 40, 60)
    one = {"n_time_masks": 1, "n_freq_masks": 0, "time_mask_frames": 1}
    out = SpecAugment(**one, layers=3, p=0.5).build(RATE, HOP)(x, generator())
    masked = (out[:, 0, 0] == 0).sum(1)  # a mask is 0 or 1 frame wide: laid with 0.5, seen with 0.25
    counts = torch.bincount(masked, minlength=4) / 2000
    torch.testing.assert_close(counts, torch.tensor([27.0, 27, 9, 1]) / 64, atol=0.05, rtol=0)
    once = SpecAugment(p=0.5)
    assert "layers" not in once.to_dict()
    assert SpecAugment(p=0.5, layers=2).to_dict()["layers"] == 2


def test_masks_can_be_filled_with_the_mean_of_the_clip() -> None:
    x = torch.randn(8, 1, 40, 120) + torch.arange(8).view(-1, 1, 1, 1)
    out = SpecAugment(fill="mean").build(RATE, HOP)(x, generator())
    zero = SpecAugment(fill="zero").build(RATE, HOP)(x, generator())
    for clip in range(8):
        changed = out[clip] != x[clip]
        assert torch.equal(changed, zero[clip] == 0)
        torch.testing.assert_close(out[clip][changed], x[clip].mean().expand(int(changed.sum())))


def test_mixup_mixes_inputs_and_targets_by_the_same_share() -> None:
    y = torch.eye(64)
    x = y[:, None, None, :] * 10
    mixed, soft = Mixup(alpha=0.4).build(RATE, HOP)(x, y, generator())
    torch.testing.assert_close(mixed[:, 0, 0] / 10, soft)
    assert ((soft > 0).sum(1) <= 2).all()
    own = soft.diagonal()
    assert own.min() < 0.2
    assert own.max() > 0.8


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_draws_from_the_beta_distribution(alpha: float) -> None:
    n = 4000
    x, y = torch.zeros(n, 1), torch.zeros(n, 2)
    x[: n // 2], y[: n // 2, 0], y[n // 2 :, 1] = 1, 1, 1
    op = Mixup(alpha=alpha).build(RATE, HOP)
    shares = op(torch.eye(500), torch.eye(500), generator())[0].diagonal().numpy()
    assert abs(shares.mean() - 0.5) < 0.06
    assert shares.var() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.2)
    mixed, soft = op(x, y, generator())
    np.testing.assert_allclose(mixed[:, 0], soft[:, 0], atol=1e-6)


@pytest.mark.parametrize("on", ["features", "waveform"])
def test_what_is_mixed_is_chosen_and_the_former_digest_stays(on: str) -> None:
    config = make("mixup", on=on)
    assert config.stage == {"features": "mix", "waveform": "waveform_mix"}[on]
    assert config.to_dict() == {"kind": "mixup", "alpha": 0.3, "p": 1.0, **({"on": on} if on == "waveform" else {})}
    x, y = torch.randn(32, 500, generator=generator(1)), torch.eye(32)
    mixed, soft = config.build(RATE, HOP)(x, y, generator())
    torch.testing.assert_close(mixed, soft @ x)


@pytest.mark.parametrize("shape", [(90,), (1, 5, 90)])
def test_cutmix_replaces_one_stretch_and_weighs_targets_by_its_length(shape: tuple[int, ...]) -> None:
    batch = 64
    x = torch.arange(batch).float().view(-1, *[1] * len(shape)).expand(batch, *shape)
    mixed, soft = CutMix(alpha=1.0, p=1.0).build(RATE, HOP)(x, torch.eye(batch), generator())
    rows = mixed if len(shape) == 1 else mixed[:, 0, 0]
    foreign = rows != x.flatten(1)[:, :1]
    assert foreign.int().diff(dim=1).abs().sum(1).max() <= 2, "one stretch"
    torch.testing.assert_close(1 - foreign.float().mean(1), soft.diagonal())
    assert foreign.float().mean(1).min() < 0.1
    assert foreign.float().mean(1).max() > 0.9
    for clip in range(batch):
        assert set(rows[clip].tolist()) <= {float(clip), *soft[clip].nonzero().flatten().tolist()}


def test_sound_levels_are_of_the_loudest_tenth_of_a_second_and_a_weighted() -> None:
    rate = 44100
    time = torch.arange(2 * rate) / rate
    tones = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (1000.0, 100.0, 63.0, 10000.0)])
    level = sound_level(tones, rate)
    expected = torch.tensor([0.0, -19.1, -26.2, -2.5]) - 3.01  # table of IEC 61672-1; a sine is 3 dB below full scale
    torch.testing.assert_close(level, expected, atol=0.3, rtol=0)
    burst = tones[:1] * ((time > 1.0) & (time < 1.3))
    torch.testing.assert_close(sound_level(burst, rate), level[:1], atol=0.05, rtol=0)
    torch.testing.assert_close(sound_level(tones / 10, rate), level - 20, atol=1e-3, rtol=0)
    assert sound_level(torch.zeros(1, 50), rate).tolist() == [-80.0]


def test_between_class_mixes_loudness_in_the_ratio_of_the_targets() -> None:
    time = torch.arange(RATE) / RATE
    tones = [torch.sin(2 * torch.pi * f * time) * a for f, a in ((1000.0, 0.5), (1250.0, 0.005))]
    x, y = torch.stack(tones * 16), torch.eye(2).repeat(16, 1)
    mixed, soft = BetweenClass().build(RATE, HOP)(x, y, generator())
    spectrum = torch.fft.rfft(mixed).abs() / RATE * 2
    heard = torch.stack([spectrum[:, 1000], spectrum[:, 1250] * 10 ** ((0.57 - 0.0) / 20)], 1)  # A-weighting at 1250 Hz
    torch.testing.assert_close(heard / heard.sum(1, keepdim=True), soft, atol=0.02, rtol=0)
    assert 0 < float(soft.min()) < 0.1
    assert 0.9 < float(soft.max()) < 1


def test_between_class_takes_partners_of_other_targets_only() -> None:
    x = torch.randn(12, 400, generator=generator(1))
    alone, soft = BetweenClass().build(RATE, HOP)(x, torch.tensor([[0.0, 1, 1]]).repeat(12, 1), generator())
    assert torch.equal(alone, x)
    assert torch.equal(soft, torch.tensor([[0.0, 1, 1]]).repeat(12, 1))
    y = torch.zeros(12, 3)
    y[:11, 0], y[11, 1] = 1, 1
    mixed, soft = BetweenClass().build(RATE, HOP)(x, y, generator())
    assert (mixed != x).any(1).all()
    assert (soft[:, :2] > 0).all(), "eleven of one class can only be mixed with the twelfth"


def test_a_range_upside_down_is_refused() -> None:
    with pytest.raises(ConfigError, match="low to high"):
        Gain.parse({"db": (6.0, -6.0)})
    with pytest.raises(ConfigError, match=r"mixup.alpha"):
        Augment.parse({"mixup": {"alpha": 0.0}})


def test_a_band_gain_adds_one_smooth_offset_to_each_band() -> None:
    x = torch.randn(200, 1, 32, 10)
    added = make("band_gain").build(RATE, HOP)(x, generator()) - x
    torch.testing.assert_close(added, added[..., :1].expand_as(added), atol=1e-5, rtol=0)
    offsets = added[:, 0, :, 0]
    assert offsets.diff(dim=1).abs().max() < 0.25, "neighbouring bands move together"
    assert 0.2 < offsets.std() < 0.4  # 0.8 / sqrt(12) of the level and the curves'
    level = make("band_gain", level=[-1, 3], deviation=0).build(RATE, HOP)(x, generator()) - x
    torch.testing.assert_close(level, level[:, :, :1, :1].expand_as(level), atol=1e-5, rtol=0)
    assert -1 <= level.min() < 0
    assert 2 < level.max() <= 3
    some = make("band_gain", p=0.5).build(RATE, HOP)(x, generator())
    assert 60 < int((some != x).flatten(1).any(1).sum()) < 140


def test_a_warp_moves_a_ridge_as_its_keys_say() -> None:
    """Twice as fast, a pulse train has twice the pulses; a shift of an eighth of 64 bins moves a tone by 8 bins; a scale of 2 doubles its
    distance from the middle.
    """
    x = torch.zeros(2, 1, 64, 80)
    x[:, :, 40, :] = 1.0
    x[:, :, :, ::20] += 2.0
    faster = make("warp", rate=[2, 2], scale=[1, 1], shift=[0, 0]).build(RATE, HOP)(x, generator())
    assert int((faster[0, 0, 5] > 1.5).sum()) == 2 * int((x[0, 0, 5] > 1.5).sum())
    higher = make("warp", rate=[1, 1], scale=[1, 1], shift=[0.125, 0.125]).build(RATE, HOP)(x, generator())
    assert int(higher[0, 0, :, 1].argmax()) == 48
    torch.testing.assert_close(higher[:, :, 20:60], x[:, :, 12:52])
    spread = make("warp", rate=[1, 1], scale=[2, 2], shift=[0, 0]).build(RATE, HOP)(x, generator())
    assert int(spread[0, 0, :, 1].argmax()) in (48, 49)  # 31.5 + 2 * 8.5
    with pytest.raises(ConfigError, match="above 0"):
        make("warp", rate=[0, 1])
