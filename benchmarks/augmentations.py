"""What each augmentation costs, as a share of the training step that it is part of.

    python benchmarks/augmentations.py                       # small_cnn and cnn4, 5 s at 22.05 and 44.1 kHz, batches of 16 and 64
    python benchmarks/augmentations.py --device cuda
    python benchmarks/augmentations.py --models small_cnn --batches 16 --rates 22050 --rounds 9

A step is forward, backward and the optimiser's step on features that are at hand. Each round times the step, then each
augmentation for a whole batch (p = 1), so that both meet the same load of the machine; a share is the median over rounds of the
ratio within a round. `features` is the log-mel of a batch: what computing features batch by batch costs, which any change of
waveforms needs, and a run without one does not. With p = 0.5 those that work on chosen clips only cost half of what stands here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from audio_cls.components.augment import Augment, Augmentation, build_augment
from audio_cls.components.augment.base import Stage
from audio_cls.components.features import LogMel
from audio_cls.components.models import Model

SECONDS, N_CLASSES = 5.0, 10


class Recordings:
    """Noise for `background`."""

    digest = ""

    def __init__(self, samples: int) -> None:
        self.clip = np.random.default_rng(0).integers(-3000, 3000, samples).astype(np.int16)

    def __len__(self) -> int:
        return 1

    def samples_of(self, i: int) -> np.ndarray:
        return self.clip


def operations(rate: int, hop: int) -> dict[str, tuple[Stage, Any]]:
    """Return every augmentation that spectrograms of waveforms can have, applied to all clips; and some in other settings."""
    ops: dict[str, tuple[Stage, Any]] = {}
    for kind, member in Augmentation.members().items():
        if not (member.takes("waveform") or member.takes("spectrogram")) or kind == "choose":
            continue
        config = member(**({"p": 1.0} if "p" in member.model_fields else {}))
        op = config.build(rate, hop)
        if kind == "background":
            op.recordings = Recordings(int(2 * SECONDS * rate))
        ops[kind] = config.stage, op
    everything = {kind: {"p": 1.0} for kind in ("noise", "time_shift", "time_stretch", "pitch_shift")}
    for label, more in {"the four of S3": {}, "one of these four": {"choose": {"k": 1}}}.items():
        built = build_augment(Augment.parse({**everything, **more}), rate, hop)
        ops[label] = "waveform", _all(built.waveform)
    return ops


def _all(ops: list[Any]) -> Callable[..., Any]:
    def apply(x: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        for op in ops:
            x = op(x, random)
        return x

    return apply


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def measure(model: str, batch: int, rate: int, device: torch.device, rounds: int) -> None:
    random = torch.Generator()
    waves = (torch.randn(batch, int(SECONDS * rate)) * 0.1).to(device)
    extractor = LogMel().build(rate).to(device)
    features, targets = extractor(waves), torch.eye(N_CLASSES)[torch.arange(batch) % N_CLASSES].to(device)
    network = Model.members()[model]().build(tuple(features.shape[1:]), N_CLASSES).to(device)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(features), targets).backward()
        optimizer.step()

    calls: dict[str, Callable[[], Any]] = {"features": lambda: extractor(waves)}
    for name, (stage, op) in operations(rate, extractor.hop_length).items():
        x = waves if stage.startswith("waveform") else features
        given = (x, targets) if stage in ("waveform_mix", "mix") else (x,)
        calls[name] = lambda op=op, given=given: op(*given, random.manual_seed(0))
    for call in (step, *calls.values()):
        call()
    steps: list[float] = []
    shares: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        steps.append(seconds(step, device))
        with torch.inference_mode():
            for name, call in calls.items():
                shares[name].append(seconds(call, device) / steps[-1])
    print(f"\n{model}, batch of {batch}, {SECONDS:g} s at {rate} Hz, {features.shape[-1]} frames: a step takes "
          f"{1000 * statistics.median(steps):.0f} ms")  # fmt: skip
    for name, values in sorted(shares.items(), key=lambda item: -statistics.median(item[1])):
        print(f"  {name:20} {statistics.median(values):7.1%}   ({min(values):.1%} to {max(values):.1%})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="+", default=["small_cnn", "cnn4"])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--rates", nargs="+", type=int, default=[22050, 44100])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    for model in args.models:
        for rate in args.rates:
            for batch in args.batches:
                measure(model, batch, rate, torch.device(args.device), args.rounds)


if __name__ == "__main__":
    main()
