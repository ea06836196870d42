"""Decoding one clip: mixdown, resampling, quantisation, and every way a file can be bad."""

from __future__ import annotations

import os
import struct
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_cls.data.audio import BadAudio, load, source_rate, to_float, to_int16, trim_silence
from audio_cls.data.headers import read_promise


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


def test_silence_at_both_ends_is_trimmed_and_pauses_stay(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    sound, pause = rng.uniform(-0.3, 0.3, 1600), np.zeros(800)
    path = tmp_path / "a.wav"
    sf.write(path, np.concatenate([np.zeros(4000), sound, pause, sound, 1e-5 * rng.standard_normal(8000)]), 8000)
    assert len(load(path, sample_rate=8000).samples) == 16000
    trimmed = load(path, sample_rate=8000, trim_db=60).samples
    assert np.array_equal(trimmed, load(path, sample_rate=8000, start=0.5, end=1.0).samples)
    assert len(load(path, sample_rate=8000, trim_db=1000).samples) == 12000, (
        "faint noise is kept, digital silence is not"
    )


@pytest.mark.parametrize("at", [0, 4000, 7990])
def test_a_click_keeps_the_shortest_duration_around_it(at: int) -> None:
    x = np.zeros(8000, dtype=np.float32)
    x[at : at + 5] = 0.5
    kept = trim_silence(x, 8000, 60, min_seconds=0.05)
    assert len(kept) == 400
    assert np.count_nonzero(kept) == 5


def test_sound_from_end_to_end_is_not_trimmed() -> None:
    x = np.random.default_rng(5).uniform(-1, 1, 1234).astype(np.float32)
    assert np.array_equal(trim_silence(x, 8000, 40), x)


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


# -- headers that promise more than there is ------------------------------------------------------------------------

FORMATS = {
    "wav": {},
    "aiff": {},
    "au": {},
    "w64": {},
    "caf": {},
    "flac": {},
    "ogg": {},
    "mp3": {"bitrate_mode": "CONSTANT"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "rf64": {"format": "RF64"},
    "wavex": {"format": "WAVEX", "subtype": "PCM_24"},
    "adpcm": {"format": "WAV", "subtype": "IMA_ADPCM"},
    "aifc": {"format": "AIFF", "subtype": "ULAW"},
    "vbr": {"format": "MP3", "bitrate_mode": "VARIABLE"},
}


class Samples(dict[str, bytes]):
    """Two seconds of sound in each format; in a failure's report without their bytes."""

    def __repr__(self) -> str:
        return "<samples>"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("formats")
    x = tone(24000, 2.0) + np.random.default_rng(5).uniform(-0.2, 0.2, 48000)
    for name, options in FORMATS.items():
        sf.write(folder / f"a.{name}", x, 24000, **options)
    return Samples({name: (folder / f"a.{name}").read_bytes() for name in FORMATS})


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_was_cut_off_is_bad_and_a_whole_one_is_not(tmp_path: Path, whole: Samples, name: str) -> None:
    path, data = tmp_path / f"a.{name}", whole[name]
    path.write_bytes(data)
    assert len(load(path, sample_rate=16000).samples) == pytest.approx(32000, abs=1600)
    for kept in (0.1, 0.5, 0.97):
        path.write_bytes(data[: int(kept * len(data))])
        with pytest.raises(BadAudio, match=r"cut short|cannot be decoded"):
            load(path, sample_rate=16000)
        if name != "flac":  # whose decoder would notice only when it gets there
            with pytest.raises(BadAudio):
                load(path, sample_rate=16000, max_seconds=0.1)


def test_an_mp3_without_a_header_of_its_length_is_bad_when_cut(tmp_path: Path, whole: Samples) -> None:
    data = whole["mp3"]
    first = data.index(data[:2], 2)  # the frame behind the one that holds the length
    (tmp_path / "a.mp3").write_bytes(data[first:])
    load(tmp_path / "a.mp3", sample_rate=16000)
    (tmp_path / "a.mp3").write_bytes(data[first:] + b"TAG" + bytes(125))  # ID3v1
    load(tmp_path / "a.mp3", sample_rate=16000)
    (tmp_path / "a.mp3").write_bytes(data[first : len(data) // 10])
    with pytest.raises(BadAudio, match=r"cut short: its header says .* bytes of its last frame"):
        load(tmp_path / "a.mp3", sample_rate=16000)
    cut = data[: len(data) // 10]
    (tmp_path / "a.mp3").write_bytes(cut)
    with pytest.raises(BadAudio, match=r"cut short: its header says .* MP3 frames"):
        load(tmp_path / "a.mp3", sample_rate=16000)


def test_a_header_that_claims_twice_the_audio_is_bad(tmp_path: Path, whole: Samples) -> None:
    wav, aiff = bytearray(whole["wav"]), bytearray(whole["aiff"])
    at = wav.index(b"data")
    wav[at + 4 : at + 8] = struct.pack("<I", 2 * 96000)
    (tmp_path / "a.wav").write_bytes(wav)
    with pytest.raises(BadAudio, match=r"header says 4\.00 s, 2\.00 s can be read"):
        load(tmp_path / "a.wav", sample_rate=16000)
    at = aiff.index(b"COMM")
    aiff[at + 10 : at + 14] = struct.pack(">I", 2 * 48000)
    (tmp_path / "a.aiff").write_bytes(aiff)
    with pytest.raises(BadAudio, match=r"header says 4\.00 s, 2\.00 s can be read"):
        load(tmp_path / "a.aiff", sample_rate=16000)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_that_was_written_to_a_pipe_is_read(tmp_path: Path, whole: Samples, size: int) -> None:
    wav = bytearray(whole["wav"])
    at = wav.index(b"data")
    wav[at + 4 : at + 8] = struct.pack("<I", size or 96000)
    wav[4:8] = struct.pack("<I", min(0xFFFFFFFF, size + 36 if size else 0))
    (tmp_path / "a.wav").write_bytes(wav)
    assert len(load(tmp_path / "a.wav", sample_rate=24000).samples) == 48000


def test_a_flac_header_that_claims_years_costs_no_memory(tmp_path: Path, whole: Samples) -> None:
    flac = bytearray(whole["flac"])
    for claimed, said in ((b"\xff" * 4, "too long"), (bytes(4), "names no length")):
        flac[21] = flac[21] & 0xF0 | claimed[0] & 0x0F  # STREAMINFO's 36 bits of samples
        flac[22:26] = claimed
        (tmp_path / "a.flac").write_bytes(flac)
        with pytest.raises(BadAudio, match=said):
            load(tmp_path / "a.flac", sample_rate=16000)
    assert len(load(tmp_path / "a.flac", sample_rate=24000, start=0.5, end=1.0).samples) == 12000


def test_no_clip_of_esc10_is_called_cut_short(esc10_root: Path) -> None:
    files = sorted((esc10_root / "audio").iterdir())
    assert len(files) == 400
    for path in files:
        with open(path, "rb") as file:
            assert read_promise(file, path.stat().st_size) is None, path


# -- what is no audio -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 100, 2_000_000])
def test_an_implausible_rate_is_bad(tmp_path: Path, rate: int) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.random.default_rng(0).integers(-9999, 9999, 16000).astype("<i2").tobytes())
    for call in (lambda p: load(p, sample_rate=16000), source_rate):
        with pytest.raises(BadAudio, match=rf"names a sample rate of {rate} Hz: 1,000 to 1,000,000 Hz are read"):
            call(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.au", "a.snd", "a.vox", "a.gsm", "a.raw", "a.wav"])
def test_text_is_no_audio_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is a text.\n" * 1000)
    with pytest.raises(BadAudio, match="cannot be decoded"):
        load(tmp_path / name, sample_rate=16000)


def test_one_huge_sample_does_not_silence_a_clip(tmp_path: Path) -> None:
    x = tone(8000).astype(np.float32)
    for value, channels in ((3e38, 1), (1e6, 1), (3e38, 2)):
        spoilt = x.copy()
        spoilt[100] = value
        sf.write(tmp_path / "a.wav", np.stack([spoilt] * channels, axis=1), 8000, subtype="FLOAT")
        with pytest.raises(BadAudio, match=r"would be silent|not finite"):
            load(tmp_path / "a.wav", sample_rate=8000)
    sf.write(tmp_path / "a.wav", x * 32767, 8000, subtype="FLOAT")  # a scale of whole numbers is a scale
    assert np.abs(load(tmp_path / "a.wav", sample_rate=8000).samples).max() > 32000
    click = np.zeros(8000, np.float32)
    click[4000:4040] = 1.3  # short and loud beside digital silence, yet a sound
    sf.write(tmp_path / "a.wav", click, 8000, subtype="FLOAT")
    assert load(tmp_path / "a.wav", sample_rate=8000).gain < 1


def test_names_that_are_not_utf8_and_paths_that_cannot_be(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    sf.write(tmp_path / "a.flac", tone(8000), 8000)
    os.rename(tmp_path / "a.flac", folder + b"/caf\xe9.flac")
    path = Path(os.fsdecode(folder + b"/caf\xe9.flac"))
    assert len(load(path, sample_rate=8000).samples) == 8000
    assert source_rate(path) == 8000
    os.mkfifo(tmp_path / "pipe.wav")
    for bad, said in (("a\0b.wav", "NUL"), ("a" * 5000, "too long"), ("pipe.wav", "not a file")):
        with pytest.raises(BadAudio, match=said):
            load(tmp_path / bad, sample_rate=8000)


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_read_or_refused(whole: Samples, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of a header changed, a part cut out or put in twice: a clip or a BadAudio, and no more memory than a clip takes."""
    name = data.draw(st.sampled_from(sorted(whole)))
    damaged = bytearray(whole[name])
    for _ in range(data.draw(st.integers(1, 4))):
        near = data.draw(st.booleans())
        at = data.draw(st.integers(0, 120 if near else max(0, len(damaged) - 1)))
        how = data.draw(st.sampled_from(["bytes", "cut", "twice", "end"]))
        if how == "bytes":
            new = data.draw(
                st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f" + b"\xff" * 3])
            )
            damaged[at : at + len(new)] = new
        elif how == "cut":
            del damaged[at : at + data.draw(st.integers(1, 400))]
        elif how == "twice":
            damaged[at:at] = damaged[at : at + data.draw(st.integers(1, 400))]
        else:
            del damaged[max(1, at) :]
    path = tmp_path / f"a.{name}"
    path.write_bytes(damaged)
    tracemalloc.start()
    try:
        audio = load(path, sample_rate=16000)
        assert np.abs(audio.samples.astype(int)).max() > 0
    except BadAudio as error:
        assert str(error).isprintable()  # noqa: PT017 - both outcomes are right
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20
