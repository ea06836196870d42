"""How fast trained models label audio, and in how much memory: one core, one thread.

    python benchmarks/prediction.py                 # times real time of small_cnn and cnn4, memory for 6 minutes and for an hour
    python benchmarks/prediction.py --hours 10      # memory for ten hours, 44.1 kHz (a sparse file of 3.2 GB in the temporary folder)

Weights are random: the time does not depend on them. Exported labellers need the extra `export`. Times are processor seconds, so that a busy machine gives the same figures, of the
whole way from the file: decoding, resampling 44.1 kHz to 16 kHz, features, model. A row is one labeller, made by a function of
`LABELLERS`: (name of the model, folder) -> labeller.
"""

from __future__ import annotations

import argparse
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

RATE, WINDOW = 16_000, 5.0
MODELS = ("small_cnn", "cnn4")


def torch_labeller(model: str, folder: Path, precision: Any = "fp32") -> Any:
    """Return a run's labeller with random weights, of windows of five seconds at 16 kHz and ten classes."""
    import json

    import torch

    from audio_cls.components.features import Normaliser
    from audio_cls.experiment import Classifier, Experiment, feature_shape
    from audio_cls.inference.run_labeller import WEIGHTS, RunLabeller
    from audio_cls.training import checkpoint

    data = {"data.sample_rate": RATE, "data.clip_seconds": WINDOW, "features.f_max": None, "data.evaluation": "windows"}
    experiment = Experiment().override({"model": model, **data})
    features = experiment.features.build(RATE)
    network = experiment.model.build(feature_shape(experiment, features), 10)
    classifier = Classifier(Normaliser.build(experiment.features, features.n_bins), network)
    (folder / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(folder / WEIGHTS, classifier.state_dict(), {})
    (folder / "experiment.json").write_text(experiment.to_json())
    (folder / "classes.json").write_text(json.dumps({"classes": [f"c{i}" for i in range(10)], "task": "multiclass"}))
    return RunLabeller(folder, torch.device("cpu"), experiment, name=model, precision=precision)


def exported_labeller(model: str, folder: Path, file: str) -> Any:
    """Return the labeller of an exported file, which one thread computes: `model.pt2`, `model.onnx` or `model.int8.onnx`."""
    import numpy as np
    import torch

    from audio_cls.inference.export.conversion import write_int8
    from audio_cls.inference.export.folder import write_manifest, write_models
    from audio_cls.inference.exported import ExportedLabeller

    labeller = torch_labeller(model, folder / "run")
    write_models(labeller, folder)
    if file == "model.int8.onnx":
        noise = np.random.default_rng(0).standard_normal((8, int(RATE * WINDOW))).astype(np.float32) * 0.1
        write_int8(folder / "model.onnx", folder / file, list(noise))
    write_manifest(labeller, folder, [file])
    return ExportedLabeller(folder / file, torch.device("cpu"))


LABELLERS: dict[str, Callable[[str, Path], Any]] = {
    "PyTorch": torch_labeller,
    "PyTorch, bf16": lambda model, folder: torch_labeller(model, folder, "bf16"),
    "torch.export": lambda model, folder: exported_labeller(model, folder, "model.pt2"),
    "ONNX": lambda model, folder: exported_labeller(model, folder, "model.onnx"),
    "ONNX, int8": lambda model, folder: exported_labeller(model, folder, "model.int8.onnx"),
}


def write_long(path: Path, seconds: float, rate: int = 44_100) -> Path:
    """Write a 16-bit WAV that holds a second of noise, then silence which takes no room on disk."""
    import numpy as np

    size = int(seconds * rate) * 2
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size
    )
    noise = (np.random.default_rng(0).standard_normal(rate) * 3000).astype("<i2")
    path.write_bytes(head + noise.tobytes())
    os.truncate(path, len(head) + size)
    return path


def speed(labeller: Any, path: Path, seconds: float) -> dict[str, float]:
    """Return times real time: windows that overlap by half, windows side by side, and many short files."""
    found = {}
    for name, hop in (("half overlapping", WINDOW / 2), ("side by side", WINDOW)):
        labeller.predict(path, hop)
        began = time.process_time()
        labeller.predict(path, hop)
        found[name] = seconds / (time.process_time() - began)
    return found


def measure_speed() -> None:
    seconds = 300.0
    with tempfile.TemporaryDirectory() as folder:
        path = write_long(Path(folder) / "five-minutes.wav", seconds)
        short = [write_long(Path(folder) / f"{i}.wav", WINDOW) for i in range(64)]
        print(
            f"{'model':<10} {'labeller':<16} {'half overlapping':>17} {'side by side':>13} {'files of 5 s a second':>22}"
        )
        for model in MODELS:
            for name, make in LABELLERS.items():
                labeller = make(model, Path(folder) / f"{model} {name}")
                times = speed(labeller, path, seconds)
                began = time.process_time()
                assert not any(one.error for one in labeller.label(short))
                files = len(short) / (time.process_time() - began)
                cells = f"{times['half overlapping']:>16,.0f}x {times['side by side']:>12,.0f}x {files:>22,.1f}"
                print(f"{model:<10} {name:<16} {cells}", flush=True)


def measure_memory(hours: float) -> None:
    """Print the peak memory of one process for each length."""
    for length in (0.1, hours):
        line = [sys.executable, __file__, "--peak", str(length)]
        print(subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


def print_peak(hours: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_long(Path(folder) / "long.wav", hours * 3600)
        labeller = torch_labeller("small_cnn", Path(folder) / "run")
        before, began = _peak(), time.process_time()
        for _ in labeller.timeline(path, WINDOW):
            pass
        took = time.process_time() - began
        print(
            f"{hours:g} hours at 44.1 kHz, {path.stat().st_size / 1e6:,.0f} MB: peak {_peak():,.0f} MB, {before:,.0f} MB before the file; "
            f"{hours * 3600 / took:,.0f} times real time"
        )


def _peak() -> float:
    """Return the peak memory of this process in MB. Linux's ru_maxrss would hold that of the process which started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1e3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0, help="length of the long file")
    parser.add_argument("--peak", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak is not None:
        print_peak(asked.peak)
    else:
        measure_speed()
        measure_memory(asked.hours)
