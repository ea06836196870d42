"""Samples per second of training: the usual notebook against audio_cls, the same small CNN on the same clips, in turns.

    python benchmarks/training.py                       # generated clips, 44.1 kHz WAV
    python benchmarks/training.py --source PATH/TO/ESC-10 --layout esc50

The notebook decodes, resamples and computes the log-mel of each clip in `__getitem__` every epoch, through a DataLoader, in
fp32, with the library's default of one process and all cores. audio_cls packs the clips once (not counted in the epochs, printed
beside them) and trains in one process a core with one thread each, as a study's workers do. Rounds alternate; the ratio is
taken round by round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def notebook(files: list[Path], labels: list[int], epochs: int, loader_workers: int) -> list[float]:
    """Seconds of each epoch the usual way; the first, which warms up, left out."""
    import soundfile as sf
    import torch
    import torchaudio
    from torch import nn

    from audio_cls.components.models import SmallCnn

    class Clips(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        def __init__(self) -> None:
            self.mel = torchaudio.transforms.MelSpectrogram(16000, n_fft=1024, hop_length=256, n_mels=64)
            self.db = torchaudio.transforms.AmplitudeToDB()

        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            x, rate = sf.read(files[i], dtype="float32", always_2d=True)
            wave = torch.from_numpy(x.mean(1))
            wave = torchaudio.functional.resample(wave, rate, 16000)
            wave = nn.functional.pad(wave, (0, max(0, 64000 - len(wave))))
            start = int(torch.randint(0, len(wave) - 64000 + 1, ()))
            return self.db(self.mel(wave[start : start + 64000]))[None], labels[i]

    model = SmallCnn().build((1, 64, 251), max(labels) + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(Clips(), batch_size=64, shuffle=True, num_workers=loader_workers)
    seconds = []
    for _ in range(epochs + 1):
        began = time.perf_counter()
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            loss.item()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def ours(corpus: Path, epochs: int) -> None:
    """One worker: prints the seconds of each epoch; SpecAugment on, since it costs us next to nothing."""
    import torch

    from audio_cls.core.device import tune_process
    from audio_cls.core.workspace import Workspace
    from audio_cls.experiment import Experiment
    from audio_cls.runs.preparation import Runtime, prepare_run
    from audio_cls.runs.resolve import resolve
    from audio_cls.training.checkpoint import CheckpointStore
    from audio_cls.training.loop import fit

    tune_process(1)
    experiment = Experiment.parse(
        {
            "data": {"corpus": str(corpus), "clip_seconds": 4.0, "split": {"kind": "cross_validation", "fold": 1}},
            "features": {"kind": "log_mel", "n_fft": 1024, "hop_length": 256, "n_mels": 64},
            "augment": {"specaugment": {}},
            "model": "small_cnn",
            "training": {"epochs": epochs + 1, "batch_size": 64},
        }
    )
    runtime = Runtime(Workspace(corpus.parent), tracker=None, device=torch.device("cpu"))  # type: ignore[arg-type]
    prepared = prepare_run(resolve(experiment, runtime.corpus(experiment.data)).experiment, runtime)
    print("ready", flush=True)
    sys.stdin.readline()
    with tempfile.TemporaryDirectory() as folder:
        result = fit(experiment, prepared.chain, prepared.batches, CheckpointStore(Path(folder)))
    n = len(prepared.split.train)
    print(n, *(row["time/train_seconds"] for row in result.history[1:]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=None)
    parser.add_argument("--layout", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--loader-workers", type=int, default=0)
    parser.add_argument("--worker", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        ours(args.worker, args.epochs)
        return

    import torch

    from audio_cls.data import sources
    from audio_cls.data.packing import prepare
    from audio_cls.data.sources.synthetic import Synthetic, generate

    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        source, layout = args.source, args.layout
        if source is None:
            source, layout = root / "sounds", None
            generate(Synthetic(n_clips=320, clip_seconds=5.0, sample_rate=44100), source)
        manifest = sources.read(source, layout)
        began = time.perf_counter()
        corpus = prepare(manifest, root / "corpora" / "bench").corpus
        print(f"packed {len(corpus)} clips once in {time.perf_counter() - began:.1f} s")
        classes = {name: i for i, name in enumerate(manifest.classes)}
        clips = [c for c in manifest.clips if c.fold != 1]
        files, labels = [Path(c.path) for c in clips], [classes[c.labels[0]] for c in clips]
        print(
            f"{len(files)} training clips, {cores} cores, torch {torch.__version__}; samples per second of the whole machine"
        )
        ratios = []
        for turn in range(args.rounds):
            theirs = len(files) / statistics.median(notebook(files, labels, args.epochs, args.loader_workers))
            mine = _workers(corpus.directory, args.epochs, cores)
            ratios.append(mine / theirs)
            print(
                f"round {turn + 1}: notebook {theirs:7.1f}   audio_cls {mine:7.1f}   ratio {mine / theirs:5.1f}",
                flush=True,
            )
        print(f"ratio: median {statistics.median(ratios):.1f}, from {min(ratios):.1f} to {max(ratios):.1f}")
        if statistics.median(ratios) < 5:
            sys.exit("below the factor of 5 that is promised")


def _workers(corpus: Path, epochs: int, count: int) -> float:
    command = [sys.executable, __file__, "--worker", str(corpus), "--epochs", str(2 * epochs)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    team = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        for _ in range(count)
    ]
    for process in team:  # all have loaded before any begins
        assert process.stdout is not None
        while process.stdout.readline().strip() != "ready":
            if process.poll() is not None:
                sys.exit("a worker died")
    for process in team:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    total = 0.0
    for process in team:
        n, *seconds = (float(word) for word in process.communicate()[0].split())
        total += n / statistics.median(seconds)
    return total


if __name__ == "__main__":
    main()
