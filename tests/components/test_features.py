"""Feature extractors against torchaudio, their promises over chunks and devices, and the normaliser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio.transforms as tat

import audio_cls.components.extractors as extractors_module
from audio_cls.components.features import Features, LogMel, Mfcc, MfccStatistics, Normaliser, Waveform
from audio_cls.core.config import ConfigError


def noise(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed)) * 0.1


MEL_CASES = [
    (16000, {}),
    (16000, {"win_length": 800, "hop_length": 160, "n_mels": 40, "f_min": 50.0, "f_max": 7000.0}),
    (22050, {"n_fft": 2048, "hop_length": 512, "n_mels": 128, "mel_scale": "slaney", "mel_norm": "slaney"}),
    (8000, {"n_fft": 256, "hop_length": 100, "n_mels": 5}),
]


@pytest.mark.parametrize(("rate", "settings"), MEL_CASES)
def test_log_mel_equals_torchaudio(rate: int, settings: dict) -> None:
    config = LogMel.parse({"n_fft": 1024, "hop_length": 256, "f_max": None, **settings})
    reference = tat.MelSpectrogram(
        rate,
        config.n_fft,
        config.win_length,
        config.hop_length,
        config.f_min,
        config.f_max,
        n_mels=config.n_mels,
        norm="slaney" if config.mel_norm == "slaney" else None,
        mel_scale=config.mel_scale,
    )
    x = noise(3, rate)
    x[1] *= torch.linspace(0, 1, rate)
    expected = 10 * reference(x).clamp(min=config.floor).log10()
    extractor = config.build(rate)
    out = extractor(x)
    assert out.shape == (3, 1, config.n_mels, extractor.frames(rate))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[:, 0], expected, atol=1e-4, rtol=0)


def test_mfcc_equals_torchaudio() -> None:
    reference = tat.MFCC(16000, 20, melkwargs={"n_fft": 1024, "hop_length": 256, "n_mels": 64})
    x = noise(1, 16000)
    out = Mfcc(top_db=80.0).build(16000)(x)  # torchaudio's own limit
    torch.testing.assert_close(out[:, 0], reference(x), atol=2e-3, rtol=0)


def test_mfcc_statistics_are_mean_and_deviation_over_time() -> None:
    x = noise(2, 16000)
    cepstra = Mfcc().build(16000)(x)[:, 0].double().numpy()
    out = MfccStatistics().build(16000)(x).numpy()
    assert out.shape == (2, 40)
    np.testing.assert_allclose(out[:, :20], cepstra.mean(2), atol=1e-3)
    np.testing.assert_allclose(out[:, 20:], cepstra.std(2), atol=1e-3)


def test_every_kind_keeps_its_contract() -> None:
    x = noise(3, 8000)
    for kind, config in Features.members().items():
        member = config()
        assert isinstance(member, Features)
        if member.input_domain != "waveform":  # see test_row_features
            with pytest.raises(ConfigError, match="no waveforms or audio files"):
                member.build(16000)
            continue
        extractor = member.build(16000)
        before = x.clone()
        out = extractor(x)
        assert torch.equal(x, before), kind
        assert out.dtype == torch.float32, kind
        assert torch.isfinite(out).all(), kind
        if member.output_domain == "waveform":
            assert torch.equal(out, x)
        elif member.framewise:
            assert out.shape == (3, 1, extractor.n_bins, extractor.frames(8000)), kind
        else:
            assert out.shape == (3, extractor.n_bins), kind
        assert not extractor.state_dict(), f"{kind}: rebuilt from its config, not stored with the weights"


@pytest.mark.parametrize("config", [LogMel(), Mfcc(), MfccStatistics(), LogMel(top_db=40.0)])
def test_result_does_not_depend_on_batch_or_chunk(config: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = config.build(16000)
    x = noise(9, 16000)
    together = extractor(x)
    assert torch.equal(torch.cat([extractor(row[None]) for row in x]), together)
    for bins in (1, 1 << 17, 1 << 40):
        monkeypatch.setattr(extractors_module, "_CPU_CHUNK_BINS", bins)
        assert torch.equal(extractor(x), together)


@pytest.mark.parametrize("samples", [1, 255, 512, 513, 1023, 1024, 5000])
def test_frames_tells_the_shape_also_of_clips_shorter_than_a_window(samples: int) -> None:
    extractor = LogMel().build(16000)
    out = extractor(noise(2, samples))
    assert out.shape[3] == extractor.frames(samples)
    assert torch.isfinite(out).all()


def test_silence_lies_at_the_floor_and_top_db_limits_the_range() -> None:
    assert torch.equal(LogMel(floor=1e-8).build(16000)(torch.zeros(1, 4000)), torch.full((1, 1, 64, 16), -80.0))
    x = noise(2, 16000)
    x[:, 8000:] = 0
    x[1] *= 0.01  # each clip by its own maximum
    out = LogMel(top_db=30.0).build(16000)(x)
    assert (out.amax((1, 2, 3)) - out.amin((1, 2, 3))).tolist() == pytest.approx([30, 30], abs=1e-4)


def test_a_tone_lands_in_its_band() -> None:
    config = LogMel(n_mels=32)
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)[None]
    band = int(config.build(16000)(tone)[0, 0].mean(1).argmax())
    mel = 2595 * np.log10(1 + 1000 / 700)
    assert abs(band - (mel / (2595 * np.log10(1 + 8000 / 700)) * 33 - 1)) <= 1


def test_autocast_does_not_touch_features() -> None:
    extractor = Mfcc().build(16000)
    x = noise(2, 8000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(x), Mfcc().build(16000)(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("config", [LogMel(), Mfcc(), MfccStatistics()])
def test_cuda_agrees_with_cpu(config: Features) -> None:
    x = noise(40, 64000)
    extractor = config.build(16000)
    expected = extractor(x)
    torch.testing.assert_close(extractor.to("cuda")(x.cuda()).cpu(), expected, atol=2e-2, rtol=0)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LogMel(f_max=9000.0), "8000 Hz"),
        (LogMel(f_min=4000.0, f_max=3000.0), "f_min=4000"),
        (LogMel(n_fft=1024, hop_length=2000), "hop_length=2000"),
        (LogMel(win_length=400, hop_length=512), "400 samples"),
        (LogMel(n_fft=1024, win_length=2048), "win_length=2048"),
        (LogMel(n_fft=256, n_mels=128), "n_mels=128"),
        (Mfcc(n_mfcc=65), "n_mfcc=65"),
        (MfccStatistics(n_mfcc=50, n_mels=40), "n_mfcc=50"),
    ],
)
def test_impossible_settings_are_refused_when_built(config: Features, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.build(16000)


def test_the_number_of_bands_that_the_error_allows_is_the_largest_that_works() -> None:
    with pytest.raises(ConfigError) as caught:
        LogMel(n_fft=256, n_mels=128, hop_length=128).build(16000)
    allowed = int(str(caught.value).split("up to ")[1].split()[0])
    LogMel(n_fft=256, n_mels=allowed, hop_length=128).build(16000)
    with pytest.raises(ConfigError):
        LogMel(n_fft=256, n_mels=allowed + 1, hop_length=128).build(16000)


def test_wrong_input_is_refused() -> None:
    extractor = LogMel().build(16000)
    with pytest.raises(ValueError, match="batch, samples"):
        extractor(torch.zeros(2, 1, 16000))
    with pytest.raises(ValueError, match="int16"):
        extractor(torch.zeros(2, 16000, dtype=torch.int16))


# -- normaliser ---------------------------------------------------------------------------------------------------


def test_normaliser_equals_numpy_in_every_form_of_input() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(5000, 6)) * [1, 2, 3, 4, 5, 6] + [1e4, -50, 0, 1, 2, 3]).astype(np.float32)
    clips = torch.from_numpy(rows).reshape(50, 100, 6).transpose(1, 2)[:, None]  # (50, 1, 6, 100)
    wide = rows.astype(np.float64)
    readonly = rows.copy()
    readonly.flags.writeable = False
    for given in (
        rows,
        readonly,
        torch.from_numpy(rows),
        clips,
        list(clips.split(7)),
        [rows[:1], rows[1:4000], rows[4000:]],
    ):
        band = Normaliser("band", 6).fit(given)
        np.testing.assert_allclose(band.mean.flatten().numpy(), wide.mean(0), rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(band.std.flatten().numpy(), wide.std(0), rtol=1e-5)
        everything = Normaliser("global", 6).fit(given)
        assert everything.mean.shape == (1, 1, 1, 1)
        assert float(everything.mean) == pytest.approx(wide.mean(), rel=1e-6)
        assert float(everything.std) == pytest.approx(wide.std(), rel=1e-6)


def test_normalised_training_features_have_mean_0_and_deviation_1() -> None:
    x = LogMel().build(16000)(noise(8, 16000))
    out = Normaliser.build(LogMel(), 64).fit(x)(x)
    assert out.mean((0, 1, 3)).abs().max() < 1e-4
    assert (out.std((0, 1, 3), correction=0) - 1).abs().max() < 1e-4


def test_normaliser_of_embeddings_waveforms_and_none() -> None:
    x = torch.randn(200, 40) * 3 + 7
    fitted = Normaliser.build(MfccStatistics(normalise="band"), 40).fit(x)
    assert fitted.mean.shape == (1, 40)
    torch.testing.assert_close(fitted(x).mean(0), torch.zeros(40), atol=1e-5, rtol=0)
    wave = noise(4, 1000)
    torch.testing.assert_close(
        Normaliser.build(Waveform(normalise="global"), 1).fit(wave)(wave).std(), torch.tensor(1.0), atol=1e-3, rtol=0
    )
    none = Normaliser.build(LogMel(normalise="none"), 64).fit(torch.randn(10, 64))
    assert torch.equal(none(x), x)


def test_a_constant_band_becomes_zero_and_not_infinite() -> None:
    rows = torch.randn(100, 3)
    rows[:, 1] = -100.0
    out = Normaliser("band", 3).fit(rows)(rows.T[None, None])
    assert torch.isfinite(out).all()
    assert (out[0, 0, 1] == 0).all()


def test_normaliser_state_has_the_same_shape_before_and_after_fitting() -> None:
    fitted = Normaliser("band", 64).fit(torch.randn(100, 64))
    fresh = Normaliser("band", 64)
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh.mean, fitted.mean)


def test_normaliser_refuses_no_rows_and_other_widths() -> None:
    with pytest.raises(ValueError, match="no features"):
        Normaliser("band", 4).fit([])
    with pytest.raises(ValueError, match="4 values"):
        Normaliser("band", 4).fit(torch.zeros(10, 5))
