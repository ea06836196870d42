"""What a run costs besides training: wall time of whole runs, the part that trained, and the rest.

    python benchmarks/run_overhead.py                   # 1000 generated clips, 5 runs of 3 epochs each
    python benchmarks/run_overhead.py --corpus FOLDER --model logistic_regression --set features=mfcc_statistics

One process runs the same experiment with several seeds, as a study's worker does, its corpus and features kept between runs; the
first run, which packs the features, is left out. "Training" is the time of the optimiser's steps; the rest is the evaluation of each
epoch, checkpoints, the record in MLflow, the statistics and the page. Prints a row for each run, then medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def made_corpus(folder: Path, n_clips: int) -> Path:
    """Generate and pack clips; returns the corpus's folder."""
    from audio_cls.data import sources
    from audio_cls.data.packing import prepare
    from audio_cls.data.sources.synthetic import Synthetic, generate

    generate(Synthetic(n_clips=n_clips), folder / "sounds")
    prepare(sources.read(folder / "sounds"), folder / "corpus")
    return folder / "corpus"


def measure(corpus: Path, workspace: Path, settings: dict[str, str], runs: int) -> list[tuple[float, float]]:
    """(wall seconds, seconds of training) of each run but the first."""
    from audio_cls.core.config import parse_assignment
    from audio_cls.core.device import tune_process
    from audio_cls.core.workspace import Workspace
    from audio_cls.experiment import Experiment
    from audio_cls.runs.objective import Record, run_experiment
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import Tracker
    from audio_cls.training.checkpoint import CheckpointStore

    tune_process(1)
    place = Workspace(workspace)
    runtime = Runtime(place, Tracker(place))
    base = Experiment().override(dict(parse_assignment(f"{k}={v}") for k, v in settings.items()))
    rows = []
    for seed in range(runs + 1):
        experiment = base.override({"data.corpus": str(corpus), "seed": seed})
        began = time.perf_counter()
        outcome = run_experiment(experiment, runtime, Record(f"seed {seed}"), CheckpointStore(workspace / str(seed)))
        wall = time.perf_counter() - began
        assert outcome.state == "COMPLETE", outcome.reason
        rows.append((wall, outcome.attrs["cost"]["train_seconds"]))
    return rows[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="a packed corpus; generated unless given")
    parser.add_argument("--clips", type=int, default=1000, help="of the generated corpus")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = (args.corpus or made_corpus(folder, args.clips)).resolve()
        settings = {"model": args.model, "training.epochs": "3", **dict(s.split("=", 1) for s in args.settings)}
        rows = measure(corpus, folder / "workspace", settings, args.runs)
    print("run   wall  train   rest  (seconds)")
    for number, (wall, train) in enumerate(rows, start=1):
        print(f"{number:3d} {wall:6.2f} {train:6.2f} {wall - train:6.2f}")
    wall, train = (statistics.median(row[i] for row in rows) for i in (0, 1))
    rest = statistics.median(row[0] - row[1] for row in rows)
    print(f"med {wall:6.2f} {train:6.2f} {rest:6.2f}  ({rest / wall:.0%} of the wall time)")


if __name__ == "__main__":
    main()
