"""What every augmentation must hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audio_cls.components.augment import Augmentation
from audio_cls.components.augment.background import BackgroundNoise
from audio_cls.components.augment.choice import ChosenOps
from audio_cls.core.errors import choices
from audio_cls.doctor.findings import Check, Skipped, expect, same, seeded

__all__ = ["AFTER", "CHECKS"]

SHAPES = {
    "waveform": (4, 8000),
    "spectrogram": (4, 1, 40, 50),
    "sequence": (4, 1, 16, 10),
    "image": (4, 3, 32, 40),
}
SAMPLE_RATE, HOP, N_CLASSES = 16000, 160, 3
_CLOSE = 1e-5
_DRAWS = 20  # of seeds that are tried until one changes the batch


def _batches(config: Augmentation) -> dict[str, Tensor]:
    """Return a batch of each domain that the operation takes where it is applied."""
    expect(
        config.domain,
        "domain is missing",
        "say what it changes: domain = 'waveform', 'spectrogram', 'sequence', 'image' or 'mix'",
    )
    taken = (
        ["waveform"]
        if config.stage.startswith("waveform")
        else [d for d in SHAPES if d != "waveform" and config.takes(d)]
    )
    expect(
        taken,
        f"it takes no domain: domain={config.domain!r}, domains={config.domains!r}",
        choices(str(config.domain), (*SHAPES, "mix")),
    )
    return {domain: seeded(*SHAPES[domain]) for domain in taken}


class _Recordings:
    """Two clips of noise for `background`, one shorter than the batch's clips and one longer."""

    digest = "generated"

    def __len__(self) -> int:
        return 2

    def samples_of(self, i: int) -> NDArray[np.int16]:
        return (seeded(6000 * (i + 1)).numpy() * 3000).astype(np.int16)


def _built(config: Augmentation) -> Any:
    """Return what an augmentation builds; `choose` with some to choose among, `background` with recordings."""
    op: Any = config.build(SAMPLE_RATE, HOP)
    expect(
        callable(op),
        f"build gives a {type(op).__name__}",
        "return a function of (batch, generator); mixing, of (batch, targets, generator)",
    )
    if isinstance(op, ChosenOps):
        others = [member for kind, member in Augmentation.members().items() if kind in ("gain", "noise", "time_shift")]
        op.ops = tuple(member.parse({"p": 1.0}).build(SAMPLE_RATE, HOP) for member in others)
    elif isinstance(op, BackgroundNoise):
        op.recordings = _Recordings()
    elif not config.stands_alone:
        raise Skipped("it works only with other parts of an experiment")
    return op


def _apply(config: Augmentation, op: Any, x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return what an operation makes of a batch, and its targets: those that it was given unless it mixes."""
    y = torch.eye(N_CLASSES)[torch.arange(len(x)) % N_CLASSES]
    generator = torch.Generator().manual_seed(seed)
    if config.stage not in ("mix", "waveform_mix"):
        return op(x, generator), y
    out = op(x, y, generator)
    expect(
        isinstance(out, tuple) and len(out) == 2,
        f"it gives a {type(out).__name__}",
        "return the batch and its targets, (x, y)",
    )
    mixed: tuple[Tensor, Tensor] = out
    return mixed


def check_shape(config: Augmentation) -> None:
    op = _built(config)
    for domain, x in _batches(config).items():
        for batch in (x, x[:1]):
            out, y = _apply(config, op, batch.clone())
            expect(isinstance(out, Tensor), f"it gives a {type(out).__name__} ({domain})", "return the changed batch")
            expect(
                out.shape == batch.shape and out.dtype == batch.dtype,
                f"a batch {tuple(batch.shape)} {batch.dtype} becomes {tuple(out.shape)} {out.dtype} ({domain})",
                "keep shape and type: crop or pad what becomes longer or shorter",
            )
            expect(
                torch.isfinite(out).all(),
                f"it gives values that are not finite ({domain})",
                "look for 0 / 0: silent clips",
            )
            expect(
                y.shape == (len(batch), N_CLASSES) and bool(((y >= 0) & (y <= 1)).all()),
                f"targets become {tuple(y.shape)}, from {float(y.min()):g} to {float(y.max()):g}",
                "return soft targets (batch, n_classes) between 0 and 1",
            )


def check_silence(config: Augmentation) -> None:
    op = _built(config)
    for domain, x in _batches(config).items():
        out, _ = _apply(config, op, torch.zeros_like(x))
        expect(
            torch.isfinite(out).all(),
            f"a silent batch becomes not finite ({domain})",
            "guard divisions by a level or a deviation",
        )


def check_input(config: Augmentation) -> None:
    op = _built(config)
    for domain, x in _batches(config).items():
        for seed in range(3):
            given = x.clone()
            _apply(config, op, given, seed)
            expect(
                torch.equal(given, x),
                f"it changes the batch that it was given ({domain})",
                "work on x.clone(): the corpus is kept in memory",
            )


def check_randomness(config: Augmentation) -> None:
    op = _built(config)
    for domain, x in _batches(config).items():
        before = torch.random.get_rng_state()
        first, second = _apply(config, op, x.clone(), 1), _apply(config, op, x.clone(), 1)
        expect(
            torch.equal(torch.random.get_rng_state(), before),
            f"it draws from PyTorch's global generator ({domain})",
            "draw with generator=generator: a resumed run then repeats the same numbers",
        )
        expect(
            torch.equal(first[0], second[0]) and torch.equal(first[1], second[1]),
            f"one seed gives two results ({domain})",
            "draw all random numbers from the generator that is given, keep no state",
        )


def check_clips_alone(config: Augmentation) -> None:
    if config.stage in ("mix", "waveform_mix"):
        raise Skipped("it mixes clips")
    op = _built(config)
    for domain, x in _batches(config).items():
        other = torch.cat([x[:1], seeded(*x[1:].shape, seed=1)])
        for seed in range(3):
            first, second = _apply(config, op, x.clone(), seed)[0][0], _apply(config, op, other.clone(), seed)[0][0]
            expect(
                same(first, second, _CLOSE),
                f"what becomes of a clip depends on the other clips of its batch ({domain})",
                "take means, deviations and largest values over the axes of one clip, not over the batch",
            )


def check_effect(config: Augmentation) -> None:
    op = _built(config)
    changed = [
        any(not torch.equal(_apply(config, op, x.clone(), seed)[0], x) for seed in range(_DRAWS))
        for x in _batches(config).values()
    ]
    expect(all(changed), f"{_DRAWS} draws left the batch as it was", "is its default probability or strength zero?")


CHECKS: dict[str, Check] = {
    "shape": check_shape,
    "silence": check_silence,
    "input kept": check_input,
    "randomness": check_randomness,
    "clips alone": check_clips_alone,
    "effect": check_effect,
}
AFTER: dict[str, tuple[str, ...]] = dict.fromkeys(("silence", "clips alone", "effect"), ("shape",)) | {
    "clips alone": ("shape", "randomness")
}
"""Checks that tell nothing before others pass."""
