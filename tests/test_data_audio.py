"""Decoding one clip: mixdown, resampling, quantisation, and every way a file can be bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_cls.data.audio import BadAudio, load, to_float, to_int16


def tone(rate: int, seconds: float = 1.0, frequency: float = 440.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=200))
@settings(max_examples=60, deadline=None)
def test_int16_loses_at_most_one_step(values: list[float]) -> None:
    x = np.asarray(values, np.float32)
    samples, gain = to_int16(x)
    assert gain == 1.0
    assert np.abs(to_float(samples) - x).max() <= 1 / 32768


def test_int16_source_comes_back_bit_for_bit(tmp_path: Path) -> None:
    original = np.random.default_rng(0).integers(-32768, 32768, 8000).astype(np.int16)
    sf.write(tmp_path / "a.wav", original, 8000, subtype="PCM_16")
    assert np.array_equal(load(tmp_path / "a.wav", sample_rate=8000).samples, original)


def test_what_exceeds_full_scale_is_turned_down_not_clipped(tmp_path: Path) -> None:
    x = tone(8000, level=2.5)
    sf.write(tmp_path / "a.wav", x, 8000, subtype="FLOAT")
    audio = load(tmp_path / "a.wav", sample_rate=8000)
    assert audio.gain == pytest.approx(0.4, abs=1e-3)
    assert np.abs(to_float(audio.samples) - x * audio.gain).max() <= 1 / 32768


@pytest.mark.parametrize("channels", [2, 6])
def test_mixdown_is_the_mean_of_the_channels(tmp_path: Path, channels: int) -> None:
    x = np.random.default_rng(1).uniform(-0.9, 0.9, (4000, channels))
    sf.write(tmp_path / "a.wav", x, 8000, subtype="FLOAT")
    audio = load(tmp_path / "a.wav", sample_rate=8000)
    assert audio.source_channels == channels
    assert np.abs(to_float(audio.samples) - x.mean(axis=1)).max() < 1 / 32768


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_resampling_keeps_length_level_and_pitch(tmp_path: Path, rate: int) -> None:
    sf.write(tmp_path / "a.wav", tone(rate, 1.37), rate, subtype="FLOAT")
    audio = load(tmp_path / "a.wav", sample_rate=16000)
    assert abs(len(audio.samples) - 1.37 * 16000) <= 1
    x, expected = to_float(audio.samples), tone(16000, 1.37)
    middle = slice(1000, -1000)
    error = x[middle] - expected[: len(x)][middle]
    assert 20 * np.log10(np.std(expected) / np.std(error)) > 70  # aligned in time as well


def test_resampling_does_not_alias(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", tone(44100, 1.0, 9500.0) + tone(44100, 1.0, 300.0, 0.01), 44100, subtype="FLOAT")
    x = to_float(load(tmp_path / "a.wav", sample_rate=16000).samples)[2000:-2000]
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))
    spectrum /= spectrum.max()
    assert spectrum[int(6300 / 16000 * len(x)) : int(6700 / 16000 * len(x))].max() < 2e-2  # at 16,000 - 9,500 Hz


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_24"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III"), ("aiff", "PCM_16")])  # fmt: skip
def test_formats(tmp_path: Path, suffix: str, subtype: str) -> None:
    path = tmp_path / f"a.{suffix}"
    sf.write(path, tone(16000, 2.0), 16000, subtype=subtype)
    audio = load(path, sample_rate=16000)
    assert len(audio.samples) == pytest.approx(32000, abs=2400)  # MP3 pads
    assert np.std(to_float(audio.samples)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_start_and_end_take_that_part(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(2)
    path = tmp_path / f"a.{suffix}"
    sf.write(path, rng.uniform(-0.3, 0.3, 16000), 8000)
    whole = load(path, sample_rate=8000).samples
    part = load(path, sample_rate=8000, start=0.5, end=1.25).samples
    assert len(part) == 6000
    assert np.abs(part.astype(int) - whole[4000:10000]).max() <= 2
    assert len(load(path, sample_rate=8000, start=0.5, max_seconds=0.25).samples) == 2000


def write_bad(path: Path, how: str) -> dict[str, float]:
    rng = np.random.default_rng(3)
    noise = rng.uniform(-0.5, 0.5, 8000)
    if how == "missing":
        return {}
    if how == "empty file":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("this is no audio " * 50)
    elif how == "no samples":
        sf.write(path, noise[:0], 8000)
    elif how == "silent":
        sf.write(path, noise * 0, 8000)
    elif how == "nearly silent":
        sf.write(path, noise * 1e-4, 8000)
    elif how == "cancels":
        sf.write(path, np.stack([noise, -noise], axis=1), 8000)
    elif how == "too short":
        sf.write(path, noise[:100], 8000)
    elif how == "nan":
        noise[7] = np.nan
        sf.write(path, noise, 8000, subtype="FLOAT")
    elif how == "cut short":
        sf.write(path, noise, 8000)
        path.write_bytes(path.read_bytes()[:6000])
    elif how == "folder":
        path.mkdir()
    else:
        sf.write(path, noise, 8000)
        return {"start": 5.0} if how == "starts behind" else {"end": 5.0}
    return {}


BAD = {
    "missing": "missing",
    "empty file": "0 bytes",
    "text": "cannot be decoded",
    "no samples": "no samples",
    "silent": "silent",
    "nearly silent": "silent",
    "cancels": "channels cancel",
    "too short": "too short",
    "nan": "not finite",
    "cut short": "cut short",
    "folder": "folder",
    "starts behind": "starts at 5 s",
    "ends behind": "ends at 5 s",
}


@pytest.mark.parametrize(("how", "reason"), BAD.items())
def test_bad_files_have_a_reason(tmp_path: Path, how: str, reason: str) -> None:
    span = write_bad(tmp_path / "a.wav", how)
    with pytest.raises(BadAudio, match=reason):
        load(tmp_path / "a.wav", sample_rate=16000, **span)


def test_a_flac_that_was_cut_off_is_bad(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.flac", np.random.default_rng(4).uniform(-0.5, 0.5, 40000), 8000)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadAudio):
        load(tmp_path / "a.flac", sample_rate=8000)
