"""Generate one clip: its sounds, their room, a background, a level. Runs in workers."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import fft

from audio_cls.core.rng import numpy_rng
from audio_cls.data.audio import to_int16
from audio_cls.data.sounds import SOUNDS, Signal, coloured_noise, fade
from audio_cls.data.sources.synthetic import Plan, Synthetic, plan

__all__ = ["render", "write_job"]

_CONTINUOUS = frozenset({"siren", "alarm", "engine", "drill", "rain", "wind", "clock", "footsteps"})


def render(config: Synthetic, made: Plan, i: int) -> Signal:
    """Return clip `i`, (n,) float32 within [-1, 1]; depends on the settings and on `i` alone."""
    n, sample_rate = round(config.clip_seconds * config.sample_rate), config.sample_rate
    group, labels = made.groups[i], made.labels[i]
    clip = numpy_rng(config.seed, "clip", i)
    mixed = np.zeros(n, np.float32)
    for k, name in enumerate(labels):
        level = 0.0 if k == 0 else clip.uniform(-10, 0)
        mixed += _sound(config, name, group, n, clip) * np.float32(10 ** (level / 20))
    if config.task == "multiclass" and len(config.classes) > 1 and clip.uniform() < config.overlap:
        other = config.classes[
            (config.classes.index(labels[0]) + int(clip.integers(1, len(config.classes)))) % len(config.classes)
        ]
        level = clip.uniform(-18, -6)
        mixed += _sound(config, other, made.groups[i] + 1_000_003, n, clip) * np.float32(10 ** (level / 20))
    room = numpy_rng(config.seed, "room", group)
    wet = _in_room(mixed, sample_rate, room)
    noise = coloured_noise(n, sample_rate, clip, slope=room.uniform(-6, 1), low=_between(room, 30, 300))
    noise *= np.float32(10 ** (-clip.uniform(*config.noise) / 20))
    out = wet / np.float32(np.sqrt(np.mean(wet**2)) + 1e-9) + noise
    level = 10 ** (clip.uniform(-32, -14) / 20) / np.sqrt(np.mean(out**2))
    return (out * np.float32(min(level, 0.98 / np.abs(out).max()))).astype(np.float32)


def write_job(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Write some clips, each whole or not at all."""
    import soundfile

    config = Synthetic.parse(job["config"])
    made, kind = _plan(config.to_json()), {"wav": "WAV", "flac": "FLAC"}[config.file_format]
    for i in job["clips"]:
        path = Path(job["directory"]) / made.names[i]
        partial = path.with_name(path.name + ".partial")
        samples, _ = to_int16(render(config, made, i))
        soundfile.write(partial, samples, config.sample_rate, subtype="PCM_16", format=kind)
        os.replace(partial, path)
    return {}, b""


@lru_cache(maxsize=1)
def _plan(settings: str) -> Plan:
    return plan(Synthetic.from_json(settings))


def _sound(config: Synthetic, name: str, group: int, n: int, clip: np.random.Generator) -> Signal:
    """Return one class's sound somewhere in the clip, of unit power while it sounds."""
    source = numpy_rng(config.seed, "source", name, group)
    m = n if name not in _CONTINUOUS or clip.uniform() < 0.5 else int(n * clip.uniform(0.35, 1.0))
    sound = SOUNDS[name](m, config.sample_rate, source, clip)
    sound = sound * fade(m, config.sample_rate, clip.uniform(0.005, 0.2), clip.uniform(0.005, 0.2))
    out = np.zeros(n, np.float32)
    start = int(clip.integers(0, n - m + 1))
    out[start : start + m] = sound / np.float32(np.sqrt(np.mean(sound**2)) + 1e-6)
    return out


def _in_room(x: Signal, sample_rate: int, room: np.random.Generator) -> Signal:
    """Early sound, a decaying tail, and the colour of room and microphone, in one multiplication of spectra."""
    decay, wet = _between(room, 0.02, 0.16), room.uniform(0.0, 0.9)
    m = int(min(0.4, 5 * decay) * sample_rate)
    tail = room.standard_normal(m, dtype=np.float32) * np.exp(
        -np.arange(m, dtype=np.float32) / np.float32(decay * sample_rate)
    )
    response = np.float32(wet) * tail / np.float32(np.sqrt(np.sum(tail**2)))
    response[0] += 1.0
    size = fft.next_fast_len(len(x) + m, real=True)
    octave = np.log2(np.maximum(np.arange(size // 2 + 1, dtype=np.float32) * (sample_rate / size), 20.0) / 1000)
    decibels = room.uniform(-3, 2) * octave
    for _ in range(2):
        decibels += room.uniform(-7, 7) * np.exp(-(((octave - room.uniform(-3, 2.5)) / room.uniform(0.3, 1.2)) ** 2))
    colour = (10 ** (np.clip(decibels, -40, 25) / 20)).astype(np.float32)
    out: Signal = fft.irfft(fft.rfft(x, size) * fft.rfft(response, size) * colour, size)[: len(x)]
    return out


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
