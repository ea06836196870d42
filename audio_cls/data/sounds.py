"""Ten kinds of procedurally made sounds, each with its own wide range of pitch, rate, timbre and envelope.

A sound is `function(n, sample_rate, source, clip) -> (n,) float32` of arbitrary level. `source` and `clip` are NumPy
generators: what a recording's clips have in common (this dog, this engine) is drawn from `source`, what happens in the
one clip (when it barks, how the engine revs) from `clip`. Their ranges overlap in pairs on purpose: siren and alarm,
engine and drill, rain and wind, clock and footsteps, bark and bird.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["SOUNDS", "Signal", "coloured_noise", "fade"]

Signal = NDArray[np.float32]
Sound = Callable[[int, int, np.random.Generator, np.random.Generator], Signal]
TAU = 2 * np.pi


# -- parts --------------------------------------------------------------------------------------------------------


def coloured_noise(
    n: int, sample_rate: int, rng: np.random.Generator, *, slope: float = 0.0, low: float = 20.0, high: float = 1e9
) -> Signal:
    """Return (n,): Gaussian noise of unit power, `slope` dB per octave between two soft band edges in hertz."""
    size = fft.next_fast_len(n, real=True)
    f = np.maximum(np.arange(size // 2 + 1, dtype=np.float32) * (sample_rate / size), 1.0)
    gain = (f / 1000.0) ** (slope / 6.02) / np.sqrt((1 + (low / f) ** 4) * (1 + (f / high) ** 4))
    spectrum = rng.standard_normal((2, len(f)), dtype=np.float32)
    out: Signal = fft.irfft((spectrum[0] + 1j * spectrum[1]) * gain.astype(np.float32), size)[:n]
    return out / np.float32(np.sqrt(np.mean(out**2)) + 1e-12)


def fade(n: int, sample_rate: int, attack: float, release: float) -> Signal:
    """Return (n,): an envelope that rises and falls over the given seconds."""
    envelope = np.ones(n, np.float32)
    a, r = (max(1, min(n // 2, int(seconds * sample_rate))) for seconds in (attack, release))
    envelope[:a] = np.linspace(0, 1, a, dtype=np.float32)
    envelope[n - r :] *= np.linspace(1, 0, r, dtype=np.float32)
    return envelope


def _phase(f: NDArray[np.floating], sample_rate: int, start: float = 0.0) -> NDArray[np.float64]:
    return np.cumsum(f, dtype=np.float64) * (TAU / sample_rate) + start


def _harmonics(phase: NDArray[np.float64], amplitudes: NDArray[np.floating], limit: float) -> Signal:
    """Return sum of a_k sin(k phase), by the recurrence of Chebyshev; `limit` is how many harmonics stay below Nyquist."""
    twice_cos = (2 * np.cos(phase)).astype(np.float32)
    before, now = np.zeros(len(phase), np.float32), np.sin(phase).astype(np.float32)
    out = amplitudes[0] * now
    for a in amplitudes[1 : max(1, int(limit))]:
        before, now = now, twice_cos * now - before
        out += np.float32(a) * now
    return out.astype(np.float32)


def _rolloff(count: int, slope: float, rng: np.random.Generator, spread: float = 0.6) -> NDArray[np.float64]:
    """Return amplitudes of harmonics that fall by `slope` dB per octave, each scattered."""
    k = np.arange(1, count + 1)
    scatter = np.exp(spread * rng.standard_normal(count))
    return np.asarray(k ** (slope / 6.02) * scatter, dtype=np.float64)


def _drift(n: int, rate: float, sample_rate: int, rng: np.random.Generator) -> Signal:
    """Return (n,): a smooth random curve in [-1, 1] that turns about `rate` times a second."""
    knots = max(4, int(n / sample_rate * rate) + 3)
    at = np.linspace(0, knots - 1.001, n // 16 + 2)  # slow enough to be worked out at every 16th sample
    values, i = rng.uniform(-1, 1, knots + 1), at.astype(np.int64)
    mix = 0.5 - 0.5 * np.cos(np.pi * (at - i))
    curve = values[i] * (1 - mix) + values[i + 1] * mix
    return np.interp(np.arange(n) / 16, np.arange(len(at)), curve).astype(np.float32)


def _place(out: Signal, at: float, part: Signal) -> None:
    """Add a short sound at a time, given in samples; what hangs over the end is cut off."""
    start = int(at)
    if 0 <= start < len(out):
        end = min(len(out), start + len(part))
        out[start:end] += part[: end - start]


def _thump(
    m: int, sample_rate: int, modes: NDArray[np.float64], decay: float, rng: np.random.Generator, noise: float
) -> Signal:
    """Return a struck thing: decaying modes (rows of frequency, level) and decaying noise."""
    t = np.arange(m, dtype=np.float32) / sample_rate
    out = noise * rng.standard_normal(m, dtype=np.float32)
    for frequency, level in modes:
        out += np.float32(level) * np.sin(np.float32(TAU * frequency) * t + np.float32(rng.uniform(0, TAU)))
    return (out * np.exp(-t / np.float32(decay))).astype(np.float32)


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# -- sounds -------------------------------------------------------------------------------------------------------


def siren(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    base, depth, rate = _log(source, 420, 1300), source.uniform(0.2, 0.8), _log(source, 0.2, 4.5)
    shape, amplitudes = source.integers(3), _rolloff(int(source.integers(2, 9)), source.uniform(-14, -5), source)
    turn = (np.arange(n) / sr * rate * clip.uniform(0.9, 1.1) + clip.uniform()) % 1.0
    sweep = (0.5 - 0.5 * np.cos(TAU * turn), turn, 0.5 + 0.5 * np.tanh(12 * np.sin(TAU * turn)))[shape]
    f = base * clip.uniform(0.95, 1.05) * (1 + depth * sweep) * (1 + 0.01 * _drift(n, 3, sr, clip))
    return _harmonics(_phase(f, sr), amplitudes, 0.45 * sr / f.max()) * (1 + 0.3 * _drift(n, 1, sr, clip))


def alarm(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    base, rate, duty = _log(source, 550, 3200), _log(source, 0.9, 7), source.uniform(0.3, 0.75)
    amplitudes = _rolloff(int(source.integers(1, 8)), source.uniform(-14, -4), source)
    of_three, second = source.integers(1, 4), source.choice([1.0, 1.0, source.uniform(1.1, 1.6)])
    beat = np.arange(n) / sr * rate + clip.uniform(0, 3)
    on = ((beat % 1.0) < duty) & (np.floor(beat) % 3 < of_three)
    smooth = np.convolve(on, np.full(k := max(1, int(0.004 * sr)), 1 / k), "same").astype(np.float32)
    f = base * clip.uniform(0.98, 1.02) * np.where(np.floor(beat) % 2 == 0, 1.0, second)
    return _harmonics(_phase(f, sr), amplitudes, 0.45 * sr / f.max()) * smooth


def engine(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    f0, amplitudes = _log(source, 24, 120), _rolloff(int(source.integers(10, 36)), source.uniform(-9, -1), source)
    rough, hiss, slope = source.uniform(0.1, 0.8), source.uniform(0.05, 0.7), source.uniform(-7, -3)
    rev = clip.uniform(0.0, 0.45) * _drift(n, clip.uniform(0.3, 1.5), sr, clip)
    f = f0 * clip.uniform(0.85, 1.2) * (1 + rev) * (1 + 0.02 * _drift(n, 12, sr, clip))
    phase = _phase(f, sr, clip.uniform(0, TAU))
    beat = (1 + rough * np.sin(phase / 2)).astype(np.float32)
    tone = _harmonics(phase, amplitudes, 0.45 * sr / f.max())
    noise = coloured_noise(n, sr, clip, slope=slope, low=60)
    return (tone / np.float32(tone.std() + 1e-9) + np.float32(hiss) * noise) * beat


def drill(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    f0, amplitudes = _log(source, 70, 330), _rolloff(int(source.integers(10, 36)), source.uniform(-4, 2), source)
    hiss, low, rough = source.uniform(0.3, 1.2), _log(source, 500, 2500), source.uniform(0.2, 0.9)
    sag = clip.uniform(0, 0.25) * _drift(n, clip.uniform(0.5, 2), sr, clip)
    f = f0 * clip.uniform(0.9, 1.15) * (1 + sag) * (1 + 0.015 * _drift(n, 20, sr, clip))
    phase = _phase(f, sr, clip.uniform(0, TAU))
    noise = coloured_noise(n, sr, clip, slope=source.uniform(-3, 1), low=low)
    tone = _harmonics(phase, amplitudes, 0.45 * sr / f.max())
    buzz = tone / np.float32(tone.std() + 1e-9) + np.float32(hiss) * noise * (1 + rough * np.sin(phase)).astype(
        np.float32
    )
    if clip.uniform() < 0.5:  # pressed and let go
        buzz = buzz * np.clip(0.6 + 1.5 * _drift(n, clip.uniform(0.8, 2.5), sr, clip), 0.05, 1)
    return buzz


def rain(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    out = coloured_noise(n, sr, clip, slope=source.uniform(-4, 2), low=_log(source, 120, 1500)) * 0.6
    drops = clip.poisson(_log(source, 4, 120) * n / sr)
    pitch, decay, level = _log(source, 700, 5000), _log(source, 0.002, 0.015), source.uniform(0.2, 2.5)
    kernels = [
        _thump(int(5 * decay * sr) + 8, sr, np.array([[pitch * source.uniform(0.6, 1.7), 1.0]]), decay, source, 0.6)
        for _ in range(4)
    ]
    where, loud = clip.integers(0, n, drops), level * clip.uniform(0, 1, drops) ** 3
    for at, gain, which in zip(where, loud, clip.integers(0, 4, drops), strict=True):
        _place(out, at, np.float32(gain) * kernels[which])
    return out * (1 + 0.25 * _drift(n, 0.7, sr, clip))


def wind(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    high, slope = _log(source, 250, 2500), source.uniform(-6, -1)
    gust_rate, depth = _log(source, 0.2, 2.0), source.uniform(0.3, 0.95)
    body = coloured_noise(n, sr, clip, slope=slope, low=40, high=high)
    gust = 1 + depth * _drift(n, gust_rate, sr, clip)
    out = body * gust
    if source.uniform() < 0.4:  # it whistles round a corner
        f = _log(source, 350, 1500) * (1 + 0.25 * (gust - 1) + 0.05 * _drift(n, 4, sr, clip))
        narrow = np.sin(_phase(f, sr) + 2.0 * _drift(n, 25, sr, clip)).astype(np.float32)
        out = out + np.float32(source.uniform(0.1, 0.6)) * narrow * np.maximum(gust - 0.8, 0)
    return out.astype(np.float32)


def bark(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    f0, length, formant = _log(source, 190, 700), _log(source, 0.06, 0.28), _log(source, 500, 1800)
    k = np.arange(1, 25)
    amplitudes = np.exp(-(((np.log2(k * f0 / formant)) / source.uniform(0.6, 1.6)) ** 2)) + 0.02
    breath, arch = source.uniform(0.1, 0.8), source.uniform(0.1, 0.6)
    out = np.zeros(n, np.float32)
    at, gap = clip.uniform(0, 0.35) * n, _log(clip, 0.16, 0.9) * sr
    for _ in range(int(clip.integers(1, 7))):
        m = int(length * clip.uniform(0.75, 1.3) * sr)
        x = np.linspace(0, 1, m)
        f = f0 * clip.uniform(0.88, 1.12) * (1 - arch / 2 + arch * np.sin(np.pi * x**0.7))
        voice = _harmonics(_phase(f, sr), amplitudes, 0.45 * sr / f.max())
        voice = voice / np.float32(voice.std() + 1e-9) + np.float32(breath) * clip.standard_normal(m, dtype=np.float32)
        _place(out, at, voice * (x**0.15 * (1 - x) ** 1.2).astype(np.float32) * np.float32(clip.uniform(0.5, 1)))
        at += m + gap * clip.uniform(0.6, 1.5)
    return out


def bird(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    f0, length, gap = _log(source, 1500, 5200), _log(source, 0.03, 0.3), _log(source, 0.03, 0.5)
    glide, trill, bend = source.uniform(-0.4, 0.4), source.uniform(0, 0.12), source.uniform(-0.3, 0.3)
    trill_rate, amplitudes = _log(source, 12, 50), np.array([1.0, source.uniform(0, 0.5), source.uniform(0, 0.25)])
    out = np.zeros(n, np.float32)
    at = clip.uniform(0, 0.3) * n
    for _ in range(int(clip.integers(1, 14))):
        m = int(length * clip.uniform(0.6, 1.5) * sr)
        x = np.linspace(0, 1, m)
        f = (
            f0
            * clip.uniform(0.9, 1.1)
            * (1 + glide * x + bend * np.sin(np.pi * x) + trill * np.sin(TAU * trill_rate * length * x))
        )
        f = np.clip(f, 400, 0.45 * sr)
        tone = _harmonics(_phase(f, sr), amplitudes, 0.45 * sr / f.max())
        _place(out, at, tone * np.sin(np.pi * x).astype(np.float32) * np.float32(clip.uniform(0.4, 1)))
        at += m + gap * sr * clip.uniform(0.7, 1.6) * (4 if clip.uniform() < 0.15 else 1)
    return out


def clock(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    period, decay, lower = _log(source, 0.22, 1.0), _log(source, 0.003, 0.025), source.uniform(0.65, 1.0)
    modes = np.stack([np.exp(source.uniform(np.log(800), np.log(6000), 3)), source.uniform(0.2, 1, 3)], axis=1)
    noise, swing, wobble = source.uniform(0, 0.8), source.uniform(-0.12, 0.12), source.uniform(0, 0.012)
    tick, tock = (_thump(int(6 * decay * sr) + 8, sr, modes * [r, 1.0], decay, source, noise) for r in (1.0, lower))
    out = np.zeros(n, np.float32)
    for k, at in enumerate(np.arange(clip.uniform(0, 1) * period, n / sr, period)):
        late = (swing * period if k % 2 else 0.0) + wobble * clip.standard_normal()
        _place(out, max(0.0, at + late) * sr, (tock if k % 2 else tick) * np.float32(clip.uniform(0.75, 1)))
    return out


def footsteps(n: int, sr: int, source: np.random.Generator, clip: np.random.Generator) -> Signal:
    period, decay, jitter = _log(source, 0.3, 0.95), _log(source, 0.012, 0.09), source.uniform(0.01, 0.09)
    modes = np.stack([np.exp(source.uniform(np.log(90), np.log(1600), 3)), source.uniform(0.2, 1, 3)], axis=1)
    grit, toe, delay = source.uniform(0.1, 1.5), source.uniform(0, 0.8), source.uniform(0.03, 0.16)
    m, out = int(5 * decay * sr) + 8, np.zeros(n, np.float32)
    at = clip.uniform(0, 1) * period
    while at < n / sr:
        level = np.float32(clip.uniform(0.5, 1))
        _place(out, at * sr, level * _thump(m, sr, modes * [clip.uniform(0.92, 1.08), 1.0], decay, clip, grit))
        _place(out, (at + delay) * sr, np.float32(toe) * level * _thump(m, sr, modes[:1], decay * 0.7, clip, grit))
        at += period * max(0.3, 1 + jitter * clip.standard_normal())
    return out


SOUNDS: dict[str, Sound] = {
    "engine": engine,
    "rain": rain,
    "bird": bird,
    "siren": siren,
    "footsteps": footsteps,
    "drill": drill,
    "clock": clock,
    "wind": wind,
    "alarm": alarm,
    "bark": bark,
}
