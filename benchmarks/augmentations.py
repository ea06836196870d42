"""What each augmentation costs, as a share of the training step that it is part of.

    python benchmarks/augmentations.py                       # small_cnn and cnn4, 5 s at 22.05 and 44.1 kHz, batches of 16 and 64; rnn on sequences
    python benchmarks/augmentations.py --device cuda
    python benchmarks/augmentations.py --models small_cnn --batches 16 --rates 22050 --rounds 9

A step is forward, backward and the optimiser's step on features that are at hand. Each round times the step, then each
augmentation for a whole batch (p = 1), so that both meet the same load of the machine; a share is the median over rounds of the
ratio within a round. `features` is the log-mel of a batch: what computing features batch by batch costs, which any change of
waveforms needs, and a run without one does not. Augmentations of sequences are measured on AudioSet's embeddings (10 vectors of 128
values a clip). Every registered augmentation has a row in one of the tables. With p = 0.5 those that work on chosen clips only cost half of what stands here.
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


def operations(domain: str, rate: int, hop: int) -> dict[str, tuple[Stage, Any]]:
    """Return every augmentation that a domain of features can have, applied to all clips; and some in other settings.

    Args:
        domain: "spectrogram", which has those of the waveforms below it as well, or "sequence".
    """
    ops: dict[str, tuple[Stage, Any]] = {}
    for kind, member in Augmentation.members().items():
        of_waveforms = member.takes("waveform") and domain == "spectrogram"
        if not (of_waveforms or member.takes(domain)) or kind == "choose":
            continue
        config = member(**({"p": 1.0} if "p" in member.model_fields else {}))
        op = config.build(rate, hop)
        if kind == "background":
            op.recordings = Recordings(int(2 * SECONDS * rate))
        ops[kind] = config.stage, op
    if domain == "spectrogram":
        everything = {kind: {"p": 1.0} for kind in ("noise", "time_shift", "time_stretch", "pitch_shift")}
        for label, more in {"the four of S3": {}, "choose (1 of these 4)": {"choose": {"k": 1}}}.items():
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
    """Print the shares of augmentations of waveforms and spectrograms in a step on log-mel features."""
    waves = (torch.randn(batch, int(SECONDS * rate)) * 0.1).to(device)
    extractor = LogMel().build(rate).to(device)
    features = extractor(waves)
    calls = _calls(operations("spectrogram", rate, extractor.hop_length), waves, features)
    title = f"{model}, batch of {batch}, {SECONDS:g} s at {rate} Hz, {features.shape[-1]} frames"
    _time(title, model, features, {"features": lambda: extractor(waves), **calls}, rounds)


def measure_sequences(batch: int, device: torch.device, rounds: int) -> None:
    """Print the shares of augmentations of sequences in a step of the recurrent network."""
    features = torch.randn(batch, 1, 128, 10).to(device)
    calls = _calls(operations("sequence", 1, 1), features, features)
    _time(f"rnn, batch of {batch}, sequences of 10 vectors of 128 values", "rnn", features, calls, rounds)


def _calls(ops: dict[str, tuple[Stage, Any]], waves: Any, features: Any) -> dict[str, Callable[[], Any]]:
    random = torch.Generator()
    targets = torch.eye(N_CLASSES)[torch.arange(len(features)) % N_CLASSES].to(features.device)
    calls: dict[str, Callable[[], Any]] = {}
    for name, (stage, op) in ops.items():
        x = waves if stage.startswith("waveform") else features
        given = (x, targets) if stage in ("waveform_mix", "mix") else (x,)
        calls[name] = lambda op=op, given=given: op(*given, random.manual_seed(0))
    return calls


def _time(title: str, model: str, features: Any, calls: dict[str, Callable[[], Any]], rounds: int) -> None:
    device = features.device
    targets = torch.eye(N_CLASSES)[torch.arange(len(features)) % N_CLASSES].to(device)
    network = Model.members()[model]().build(tuple(features.shape[1:]), N_CLASSES).to(device)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(features), targets).backward()
        optimizer.step()

    for call in (step, *calls.values()):
        call()
    steps: list[float] = []
    shares: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        steps.append(seconds(step, device))
        with torch.inference_mode():
            for name, call in calls.items():
                shares[name].append(seconds(call, device) / steps[-1])
    print(f"\n{title}: a step takes {1000 * statistics.median(steps):.0f} ms")
    for name, values in sorted(shares.items(), key=lambda item: -statistics.median(item[1])):
        print(f"  {name:22} {statistics.median(values):7.1%}   ({min(values):.1%} to {max(values):.1%})", flush=True)


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
    for batch in args.batches:
        measure_sequences(batch, torch.device(args.device), args.rounds)
    for model in args.models:
        for rate in args.rates:
            for batch in args.batches:
                measure(model, batch, rate, torch.device(args.device), args.rounds)


if __name__ == "__main__":
    main()
