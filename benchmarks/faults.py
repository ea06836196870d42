"""A study under fire: faults at random moments, the same command again each time, then a count of what was lost.

    python benchmarks/faults.py --faults 10 --workers 1      # compared, trial by trial, with a study that was left alone
    python benchmarks/faults.py --faults 10 --workers 2 --storage postgresql     # on a server that is started for it
    python benchmarks/faults.py --campaign --faults 208      # all kinds of faults over four studies: see fault_campaign.py

Faults (`--kinds`): `kill` ends supervisor and workers with SIGKILL at once, `kill-worker` one worker only, `term` asks the supervisor to
leave (SIGTERM), `interrupt` likewise as Ctrl-C does, `stop` halts a worker with SIGSTOP and lets it go on later. Everything is
drawn from `--seed`. Only processes that this program started are signalled, by id; each run is bounded in time.
Exits 1 when anything was lost, run twice, left running, or differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

STUDY = """
from audio_cls.experiment import Experiment
from audio_cls.study import TPE, Median, Study

BASE = Experiment.parse({{
    "data": {{"corpus": "faults", "clip_seconds": 1.0, "sample_rate": 8000}},
    "features": {{"kind": "log_mel", "n_fft": 256, "hop_length": 128, "n_mels": 32}},
    "training": {{"epochs": {epochs}, "batch_size": 16}},
}})

def space(trial):
    changes = {{"optimizer.lr": trial.suggest_float("lr", 1e-4, 3e-2, log=True)}}
    if trial.suggest_categorical("mixup", [False, True]):
        changes["augment.mixup.alpha"] = trial.suggest_float("alpha", 0.1, 1.0)
    return changes

STUDY = Study("faults", base=BASE, space=space, sampler=TPE(seed=0, startup_trials=4), pruner=Median(startup_trials=3, warmup_epochs=3))
"""


def command(workspace: Path, trials: int, workers: int) -> list[str]:
    """The command that a user would give; the storage is in the environment where it is no file."""
    words = [
        sys.executable,
        "-m",
        "audio_cls.cli",
        "--workspace",
        str(workspace),
        "study",
        "run",
        str(workspace / "study.py"),
    ]
    return [*words, "--trials", str(trials), "--workers", str(workers)]


def start(workspace: Path, trials: int, workers: int) -> subprocess.Popen[bytes]:
    with open(workspace / "run.log", "ab") as log:
        return subprocess.Popen(
            command(workspace, trials, workers),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def members(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The workers of a supervisor that is running."""
    try:
        return [p for p in psutil.Process(process.pid).children() if "audio_cls.queue.process" in p.cmdline()]
    except psutil.NoSuchProcess:
        return []


def inflict(kind: str, process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """One fault; what was done. The supervisor has ended when this returns, except after `kill-worker` and `stop`."""
    team = members(process)
    if kind in ("kill-worker", "stop") and team:
        victim = rng.choice(team)
        if kind == "kill-worker":
            victim.send_signal(signal.SIGKILL)
            return f"killed worker {victim.pid}"
        victim.send_signal(signal.SIGSTOP)
        pause = rng.uniform(0.5, 4.0)
        time.sleep(pause)
        victim.send_signal(signal.SIGCONT)
        return f"stopped worker {victim.pid} for {pause:.1f} s"
    if kind in ("term", "interrupt"):
        process.send_signal(signal.SIGTERM if kind == "term" else signal.SIGINT)
        process.wait(timeout=120)
        return f"{kind} of the supervisor"
    process.send_signal(signal.SIGKILL)
    for worker in team:
        worker.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    psutil.wait_procs(team, timeout=30)
    return f"killed the supervisor and {len(team)} workers"


def campaign(
    workspace: Path, trials: int, workers: int, kinds: list[str], faults: int, rng: random.Random, longest: float
) -> dict[str, int]:
    """Run the study to its end through `faults` faults; how many of each kind were inflicted."""
    done = dict.fromkeys(kinds, 0)
    left = faults
    deadline = time.monotonic() + 60 + 90 * (faults + 1) + trials * 30
    while True:
        process = start(workspace, trials, workers)
        while left:
            wait = time.monotonic() + rng.uniform(1.0, longest)
            while process.poll() is None and time.monotonic() < wait:
                time.sleep(0.05)
            if process.poll() is not None:
                break
            kind = rng.choice(kinds)
            print(f"  {faults - left + 1:3d} {inflict(kind, process, rng)}", flush=True)
            done[kind] += 1
            left -= 1
            if process.poll() is not None:
                break
        if not left and process.poll() is None:
            process.wait(timeout=max(10.0, deadline - time.monotonic()))
        if process.returncode == 0:
            return done
        if process.returncode == 2 or time.monotonic() > deadline:
            sys.exit(
                f"the study did not go on (exit code {process.returncode}); see {workspace / 'run.log'}:\n"
                + (workspace / "run.log").read_text()[-3000:]
            )


def results(workspace: Path) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """What the study holds, by configuration, and everything that is wrong with it."""
    from audio_cls.core.workspace import Workspace
    from audio_cls.experiment import Experiment
    from audio_cls.queue.status import study_status
    from audio_cls.queue.storage import load_study, open_storage
    from audio_cls.tracking import Tracker
    from audio_cls.tracking.run import FIGURES
    from audio_cls.training.checkpoint import read

    where = os.environ.get("AUDIO_CLS_STORAGE") or workspace / "optuna.db"
    study = load_study("faults", open_storage(where, must_exist=True))
    status = study_status(study)
    wrong: list[str] = []
    if status.running or status.waiting:
        wrong.append(f"{status.running} running and {status.waiting} waiting trials are left")
    tracker = Tracker(Workspace(workspace))
    tracker.flush()
    runs = {r.run_id: r for r in tracker.runs() if r.tags.get("kind") == "trial"}
    found: dict[int, dict[str, Any]] = {}
    trials = {t.number: t for t in study.get_trials(deepcopy=False)}
    for row in status.rows:
        if row.config is None:
            continue
        if row.config in found:
            wrong.append(f"configuration {row.config} is there twice")
        trial = trials[row.number]
        steps = sorted(trial.intermediate_values)
        found[row.config] = {
            "params": row.params,
            "state": row.state,
            "value": row.value,
            "curve": [trial.intermediate_values[s] for s in steps],
        }
        if steps != list(range(len(steps))):
            wrong.append(f"configuration {row.config}: the curve in Optuna has the steps {steps}")
        run = runs.pop(row.record.mlflow_run_id or "", None)
        if run is None:
            wrong.append(f"configuration {row.config}: no run in MLflow")
            continue
        points = tracker.curve(run.run_id, "val/macro_f1")
        if [s for s, _ in points] != steps:
            wrong.append(
                f"configuration {row.config}: the curve in MLflow has the steps {[s for s, _ in points]}, Optuna has {steps}"
            )
        for key in run.metrics:
            if key.startswith(FIGURES) and len(tracker.curve(run.run_id, key)) != 1:
                wrong.append(f"configuration {row.config}: {key} is recorded more than once in MLflow")
        if run.state != row.state:
            wrong.append(f"configuration {row.config}: MLflow says {run.state}, Optuna {row.state}")
        try:
            Experiment.from_json(tracker.download(run.run_id, "experiment.json").read_text())
            if row.state == "COMPLETE":
                read(tracker.download(run.run_id, "weights/best.safetensors"))
                tracker.download(run.run_id, "report.html")
        except Exception as error:
            wrong.append(f"configuration {row.config}: artifacts: {error}")
    if runs:
        wrong.append(f"{len(runs)} runs in MLflow belong to no configuration: {[r.name for r in runs.values()]}")
    params = [json.dumps(v["params"], sort_keys=True) for v in found.values()]
    if len(set(params)) < len(params):
        wrong.append("two configurations have the same parameters")
    return found, wrong


def make(root: Path, epochs: int, n_clips: int = 200) -> Path:
    """A workspace with a small generated corpus and the study's file."""
    from audio_cls.data import sources
    from audio_cls.data.packing import prepare
    from audio_cls.data.sources.synthetic import Synthetic, generate

    generate(Synthetic(n_clips=n_clips, clip_seconds=1.0, sample_rate=8000), root / "sounds")
    prepare(sources.read(root / "sounds"), root / "corpora" / "faults", sample_rate=8000)
    (root / "study.py").write_text(STUDY.format(epochs=epochs))
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=10)
    parser.add_argument("--kinds", default="kill", help="comma separated: kill, kill-worker, term, interrupt, stop")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--longest", type=float, default=14.0, help="seconds at most between two faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--campaign", action="store_true")
    parser.add_argument("--sites", default="", help="of a campaign: only those whose name has this word, such as suite")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if args.campaign:
        from benchmarks.fault_campaign import campaign as everything

        with tempfile.TemporaryDirectory() as temporary:
            sys.exit(
                1
                if everything(
                    Path(temporary),
                    args.faults,
                    args.seed,
                    3600.0,
                    lambda root: make(root, args.epochs, 80),
                    args.sites,
                )
                else 0
            )
    with contextlib.ExitStack() as stack:
        if args.storage == "postgresql":
            from tests.servers import postgresql

            server = stack.enter_context(postgresql())
            os.environ["AUDIO_CLS_STORAGE"] = server.create("faults")
        once(
            args,
            lambda: (
                os.environ.update(AUDIO_CLS_STORAGE=server.create("quiet")) if args.storage == "postgresql" else None
            ),
        )


def once(args: argparse.Namespace, fresh: Callable[[], None]) -> None:
    """One study under fire, compared with one that was left alone where a single worker ran it; `fresh` gives that a database."""
    kinds = args.kinds.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        shot = make(Path(temporary) / "shot", args.epochs)
        began = time.monotonic()
        inflicted = campaign(
            shot, args.trials, args.workers, kinds, args.faults, random.Random(args.seed), args.longest
        )
        print(
            f"{sum(inflicted.values())} faults ({', '.join(f'{v} {k}' for k, v in inflicted.items())}) in {time.monotonic() - began:.0f} s"
        )
        found, wrong = results(shot)
        if len(found) != args.trials:
            wrong.append(f"{len(found)} configurations finished, {args.trials} were asked")
        if args.workers == 1:
            fresh()
            quiet = make(Path(temporary) / "quiet", args.epochs)
            subprocess.run(command(quiet, args.trials, 1), check=True, stdout=subprocess.DEVNULL, timeout=600)
            expected, _ = results(quiet)
            for k in sorted(expected):
                for what in ("params", "state", "value", "curve"):
                    if found.get(k, {}).get(what) != expected[k][what]:
                        wrong.append(
                            f"configuration {k}: {what} {found.get(k, {}).get(what)} instead of {expected[k][what]}"
                        )
            same = sum(found.get(k) == expected[k] for k in expected)
            print(f"{same} of {len(expected)} configurations equal those of the study that was left alone, bit for bit")
        states = [v["state"] for v in found.values()]
        print(
            f"finished {len(found)} of {args.trials}: {', '.join(f'{states.count(s)} {s}' for s in sorted(set(states)))}; wrong: {len(wrong)}"
        )
        for line in wrong:
            print(f"  {line}")
        sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
