"""A toy experiment, its space and an objective that sleeps, checkpoints and resumes: studies are tested without training.

`open_toy` gives a worker process its work.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audio_cls.core.config import Component
from audio_cls.queue.seam import TrialContext
from audio_cls.runs.outcome import Outcome
from audio_cls.study import TPE, Median, Study

EPOCHS = 6


class ToyModel(Component, family=True):
    pass


class Narrow(ToyModel, kind="narrow"):
    width: int = 4


class Deep(ToyModel, kind="deep"):
    layers: int = 2
    rate: float = 0.1


class Toy(Component):
    x: float = 0.5
    model: ToyModel = Narrow()
    epochs: int = EPOCHS


def space(trial: Any) -> dict[str, Any]:
    kind = trial.suggest_categorical("model.kind", ["narrow", "deep"])
    changes = {"x": trial.suggest_float("x", 0.0, 1.0), "model.kind": kind}
    if kind == "narrow":
        changes["model.width"] = trial.suggest_int("model.width", 1, 8)
    else:
        changes["model.layers"] = trial.suggest_int("model.layers", 1, 4)
        changes["model.rate"] = trial.suggest_float("model.rate", 1e-3, 1.0, log=True)
    return changes


def declare(**changes: Any) -> Study:
    settings: dict[str, Any] = {
        "name": "toy",
        "base": Toy(),
        "space": space,
        "sampler": TPE(seed=3, startup_trials=4),
        "pruner": Median(startup_trials=3, warmup_epochs=1),
    }
    return Study(**{**settings, **changes})


def step(experiment: Toy, epoch: int, before: float) -> float:
    """One epoch: depends on what came before, so that a wrong resume shows."""
    noise = int.from_bytes(hashlib.sha256(f"{experiment.to_json()} {epoch}".encode()).digest()[:4], "big") / 2**32
    speed = 0.45 - abs(experiment.x - 0.3) * 0.4 + 0.1 * noise
    return before + (1.0 - before) * speed


class FakeObjective:
    """Trains for `epochs` epochs; checkpoints under FOLDER/root/number.json; each trained epoch is a line of FOLDER/epochs.log."""

    def __init__(
        self, folder: Path, seconds: float = 0.0, on_epoch: Callable[[TrialContext, int], None] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.seconds = seconds
        self.on_epoch = on_epoch
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, context: TrialContext) -> Outcome:
        experiment = context.experiment
        assert isinstance(experiment, Toy)
        if "run" not in context.attrs:
            context.set_attr("run", f"run-{context.root}")
        curve = self._load(context)
        for epoch, value in enumerate(curve):
            context.report(epoch, value)
        stopped = context.should_stop() if curve else None
        while stopped is None and len(curve) < experiment.epochs:
            epoch = len(curve)
            time.sleep(self.seconds)
            if self.on_epoch:
                self.on_epoch(context, epoch)
            curve.append(step(experiment, epoch, curve[-1] if curve else 0.0))
            self._save(context, curve)
            with open(self.folder / "epochs.log", "a", encoding="utf-8") as log:
                log.write(f"{context.config_index} {context.number} {epoch} {os.getpid()}\n")
            context.report(epoch, curve[-1])
            stopped = context.should_stop()
        if stopped and len(curve) < experiment.epochs:
            return Outcome("PRUNED" if stopped.startswith("pruned") else "INTERRUPTED", None, stopped)
        return Outcome("COMPLETE", curve[-1], attrs={"epochs": len(curve)})

    def _load(self, context: TrialContext) -> list[float]:
        for number in (context.number, *context.lineage):
            path = self.folder / str(context.root) / f"{number}.json"
            if path.exists():
                return list(json.loads(path.read_text()))
        return []

    def _save(self, context: TrialContext, curve: list[float]) -> None:
        path = self.folder / str(context.root) / f"{context.number}.json"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(curve))
        os.replace(temporary, path)


def work(declared: Any, folder: Path, total: int, objective: Any, **settings: Any) -> Any:
    """Run a worker in this process; settings are those of `QueueOptions` and `Shift`, and the identity."""
    from audio_cls.queue.options import QueueOptions
    from audio_cls.queue.worker import Shift, run_worker

    shift = Shift(**{k: settings.pop(k) for k in ("only", "since", "supervisor", "stop") if k in settings})
    identity = settings.pop("identity", None)
    return run_worker(declared, folder, total, objective, QueueOptions(**settings), identity=identity, shift=shift)


def outcomes(study: Any) -> dict[int, tuple[str, Any, dict[str, Any], dict[int, float]]]:
    """Each configuration by its index: state, value, parameters, curve."""
    from audio_cls.queue.queue import Tally

    latest = Tally.of(study.get_trials(deepcopy=False)).latest
    return {
        k: (t.state.name, t.value, dict(t.params), dict(sorted(t.intermediate_values.items())))
        for k, t in sorted(latest.items())
    }


def open_toy(session: Any, file: str, folder: str, seconds: float) -> Any:
    """The work of a worker process of a supervisor's tests."""
    from audio_cls.queue.process import Worked
    from audio_cls.study import load_study_file

    return Worked(load_study_file(Path(file))[0], FakeObjective(Path(folder), seconds))


def tell_environment(session: Any, file: str, folder: str, seconds: float) -> Any:
    """Write down what the worker process was given, then go on as `open_toy`."""
    Path(folder).mkdir(exist_ok=True)
    told = [os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"], os.getsid(0) == os.getpid()]
    (Path(folder) / sys.argv[2]).write_text(json.dumps(told))
    return open_toy(session, file, folder, seconds)
