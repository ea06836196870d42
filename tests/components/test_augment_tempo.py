"""Stretching, pitch and speed: what becomes of tones, clicks and notes."""

from __future__ import annotations

import pytest
import torch

from audio_cls.components.augment import PitchShift, Speed, TimeStretch
from audio_cls.components.augment.vocoder import stretch, window_length
from audio_cls.core.config import ConfigError

RATE, SAMPLES = 16000, 48000
TIME = torch.arange(SAMPLES) / RATE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frequency(x: torch.Tensor) -> torch.Tensor:
    """The strongest frequency of each waveform in Hz, and the share of the power within 15 Hz of it."""
    power = torch.fft.rfft(x * torch.hann_window(x.shape[1]), n=4 * x.shape[1]).abs().square()
    bins = torch.fft.rfftfreq(4 * x.shape[1], 1 / RATE)
    peak = bins[power.argmax(1)]
    near = (bins - peak[:, None]).abs() < 15
    return torch.stack([peak, (power * near).sum(1) / power.sum(1)])


def notes(rate: float) -> torch.Tensor:
    """Seven decaying harmonic notes, played `rate` times as fast at their own pitch."""
    out = torch.zeros(SAMPLES)
    for number, pitch in enumerate([220, 277, 330, 440, 554, 659, 880]):
        since = TIME - (0.2 + 0.4 * number) / rate
        decay = torch.where(since >= 0, (-6 * rate * since).exp(), torch.zeros(()))
        for harmonic in range(1, 5):
            out += decay * torch.sin(2 * torch.pi * pitch * harmonic * since) / harmonic
    return out


def power_by_band(x: torch.Tensor) -> torch.Tensor:
    """The level in dB of 64 bands a frame, (64, frames)."""
    spectrum = torch.stft(x, 512, 256, window=torch.hann_window(512), return_complex=True)
    return 10 * spectrum.abs().square()[:256].view(64, 4, -1).sum(1).clamp_min(1e-6).log10()


def test_a_rate_of_one_changes_nothing_and_batches_do_not_matter() -> None:
    x = torch.randn(5, 9000, generator=generator())
    torch.testing.assert_close(stretch(x, torch.ones(5), 512), x, atol=1e-5, rtol=0)
    rates = torch.tensor([0.8, 0.95, 1.0, 1.1, 1.3])
    together = stretch(x, rates, 512)
    for clip in range(5):
        alone = stretch(x[clip : clip + 1], rates[clip : clip + 1], 512)
        torch.testing.assert_close(alone[0], together[clip], atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [0.7, 0.83, 0.97, 1.04, 1.2, 1.6])
def test_a_stretched_tone_keeps_its_pitch_and_level(rate: float) -> None:
    pitch = torch.tensor([200.0, 443.0, 1000.0, 3001.0, 6500.0])
    x = torch.sin(2 * torch.pi * pitch[:, None] * TIME)
    middle = slice(6000, 28000)
    out = stretch(x, torch.full((5,), rate), window_length(RATE))[:, middle]
    peak, share = frequency(out)
    torch.testing.assert_close(peak, pitch, atol=1.0, rtol=0)
    assert share.min() > 0.995
    torch.testing.assert_close(out.square().mean(1).sqrt(), torch.full((5,), 0.5**0.5), atol=0.06, rtol=0)


@pytest.mark.parametrize("rate", [0.8, 0.93, 1.07, 1.25])
def test_clicks_stand_where_the_rate_puts_them_and_the_end_is_cut_or_silent(rate: float) -> None:
    at = torch.tensor([4000, 17000, 29000])
    x = torch.randn(1, SAMPLES, generator=generator()) * 1e-3
    x[0, at] = 1
    out = stretch(x, torch.tensor([rate]), window_length(RATE))
    assert out.shape == x.shape
    energy = out.square().unfold(1, 512, 64).sum(2)[0]
    for place in (at / rate).tolist():
        near = slice(max(0, int((place - 1200) / 64)), int((place + 1200) / 64))
        assert abs((near.start + int(energy[near].argmax())) * 64 + 256 - place) < 0.03 * RATE
    end = int(SAMPLES / rate)
    if rate > 1:
        assert out[0, end + 1100 :].abs().max() == 0
    assert out[0, min(end, SAMPLES) - 3000 : min(end, SAMPLES) - 1100].std() > 5e-4


@pytest.mark.parametrize("rate", [0.83, 1.2])
def test_stretched_notes_are_nearly_those_played_at_that_tempo(rate: float) -> None:
    """A vocoder without phase locking, torchaudio's say, is off by 3 to 4 dB."""
    expected = power_by_band(notes(rate))
    heard = power_by_band(stretch(notes(1.0)[None], torch.tensor([rate]), window_length(RATE))[0])
    loud = (expected > expected.max() - 35) & (
        torch.arange(expected.shape[1]) < expected.shape[1] * min(1, 1 / rate) - 8
    )
    assert (heard - expected)[loud].abs().mean() < 1.5


@pytest.mark.parametrize("semitones", [-5.0, -2.0, -0.3, 0.2, 2.0, 7.0])
def test_a_shifted_tone_has_the_asked_pitch_and_clicks_stay(semitones: float) -> None:
    pitch = torch.tensor([300.0, 1000.0, 2500.0])
    x = torch.sin(2 * torch.pi * pitch[:, None] * TIME)
    shift = PitchShift(semitones=(semitones, semitones), p=1.0).build(RATE, 256)
    peak, share = frequency(shift(x, generator())[:, 6000:28000])
    torch.testing.assert_close(12 * (peak / pitch).log2(), torch.full((3,), semitones), atol=0.06, rtol=0)
    assert share.min() > 0.99
    clicks = torch.zeros(1, SAMPLES)
    clicks[0, [9000, 30000]] = 1
    energy = shift(clicks, generator()).square().unfold(1, 512, 64).sum(2)[0]
    for place in (9000, 30000):
        near = slice((place - 1500) // 64, (place + 1500) // 64)
        assert abs((near.start + int(energy[near].argmax())) * 64 + 256 - place) < 0.03 * RATE


def test_speed_changes_pitch_and_tempo_alike() -> None:
    x = torch.sin(2 * torch.pi * 1000 * TIME).repeat(64, 1) * (TIME < 2)
    out = Speed(p=1.0).build(RATE, 256)(x, generator())
    assert out.shape == x.shape
    rate = frequency(out[:, :24000])[0] / 1000
    assert 0.8 <= float(rate.min()) < 0.85
    assert 1.2 < float(rate.max()) <= 1.25
    length = (out.abs() > 0.1).float().mul(torch.arange(SAMPLES)).amax(1) / RATE
    torch.testing.assert_close(length * rate, torch.full((64,), 2.0), atol=0.01, rtol=0)


def test_fast_playing_does_not_fold_high_frequencies_down() -> None:
    x = torch.sin(2 * torch.pi * 7800 * TIME)[None]
    faster = Speed(rate=(1.25, 1.25), p=1.0).build(RATE, 256)(x, generator())
    assert faster[:, 1000:-12000].std() < 0.03


@pytest.mark.parametrize("samples", [1, 100, 700])
def test_clips_shorter_than_a_frame_are_changed_without_error(samples: int) -> None:
    x = torch.randn(3, samples, generator=generator())
    for config in (TimeStretch(p=1.0), PitchShift(p=1.0), Speed(p=1.0)):
        out = config.build(RATE, 256)(x, generator())
        assert out.shape == x.shape
        assert torch.isfinite(out).all()


def test_rates_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"rates from 0.5 to 2 are allowed"):
        TimeStretch.parse({"rate": (0.1, 1.0)})
    with pytest.raises(ConfigError, match="semitones from -12 to 12"):
        PitchShift.parse({"semitones": (-20.0, 1.0)})
