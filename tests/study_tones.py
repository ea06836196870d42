"""Studies over the corpus `tones` with the real objective: a workspace, a study's file, workers in this process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from audio_cls.core.workspace import Workspace
from audio_cls.queue.lease import worker_identity
from audio_cls.queue.queue import Queue
from audio_cls.queue.storage import open_storage
from audio_cls.queue.worker import Shift, WorkerReport, run_worker
from audio_cls.runs.preparation import Runtime
from audio_cls.study.launches import Launch, record_launch
from audio_cls.study.opening import PARENT, open_parts
from audio_cls.study.search import open_parent, study_identity, trial_objective
from audio_cls.tracking import Tracker

STUDY = """
from audio_cls.experiment import Experiment
from audio_cls.study import Percentile, RandomSearch, Study

BASE = Experiment.parse({
    "data": {"corpus": "tones", "sample_rate": 8000, "clip_seconds": 0.5},
    "features": {"kind": "log_mel", "n_fft": 256, "hop_length": 256, "n_mels": 16},
    "augment": {"mixup": {"alpha": 0.3}},
    "schedule": {"kind": "SCHEDULE"},
    "training": {"epochs": EPOCHS, "batch_size": 12, "precision": "fp32"},
})

def space(trial):
    return {"optimizer.lr": trial.suggest_float("lr", 1e-6, 3e-2, log=True)}

STUDY = Study("tones", base=BASE, space=space, sampler=RandomSearch(seed=1),
              pruner=Percentile(percentile=50.0, startup_trials=1, warmup_epochs=1))
"""


class Place:
    """A workspace with a study's file in it."""

    def __init__(self, root: Path, corpus: Path | None, schedule: str = "cosine", epochs: int = 4) -> None:
        torch.set_num_threads(1)
        forget_artifact_places()
        self.workspace = Workspace(root)
        self.file = root / "tones.py"
        if corpus is not None:
            shutil.copytree(corpus, root / "corpora" / "tones")
            self.file.write_text(STUDY.replace("SCHEDULE", schedule).replace("EPOCHS", str(epochs)))

    @property
    def launch(self) -> Launch:
        return Launch(self.file)

    @property
    def storage(self) -> Any:
        return open_storage(self.workspace.optuna_db)

    def study(self, launch: Launch | None = None) -> Any:
        return open_parts(self.workspace, launch or self.launch, None).opened

    def enqueue(self, *rates: float) -> None:
        study = self.study()
        for lr in rates:
            study.enqueue_trial({"lr": lr})

    def queue(self, launch: Launch | None = None) -> Queue:
        return Queue(self.study(launch), self.storage, worker_identity())

    def run(self, total: int, *, only: Sequence[int] | None = None, launch: Launch | None = None, stop_after: int | None = None) -> WorkerReport:  # fmt: skip
        """What one worker process does, in this one; `stop_after` interrupts after so many reports."""
        forget_artifact_places()
        launch = launch or self.launch
        search = open_parts(self.workspace, launch, None)
        study, corpus, opened = search.study, search.corpus, search.opened
        record_launch(self.workspace, opened, launch)
        tracker = Tracker(self.workspace)
        parent = open_parent(tracker, study, corpus, launch.file, opened.user_attrs.get(PARENT))
        opened.set_user_attr(PARENT, parent.id)
        objective = trial_objective(
            Runtime(self.workspace, tracker, torch.device("cpu")), study, parent.id, launch.file
        )
        if stop_after is not None:
            objective = _Stopping(objective, stop_after)
        identity: Mapping[str, Any] = study_identity(corpus)
        try:
            return run_worker(study, self.workspace.root, total, objective, identity=identity, shift=Shift(only))
        finally:
            tracker.flush()

    def revive(self, **wanted: Any) -> Any:
        from audio_cls.study.revive import queue_revivals

        search = open_parts(self.workspace, wanted.pop("launch", self.launch), None)
        queue = Queue(search.opened, self.storage, worker_identity())
        return queue_revivals(self.workspace, search.opened, queue, search.corpus.digest, **wanted)


def forget_artifact_places() -> None:
    """MLflow keeps, for as long as a process lives, where each run's artifacts lie: these tests move folders in one process."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()


class Killed(BaseException):
    """The worker's process is gone."""


class _Stopping:
    """Lets a worker die at its n-th report, as a kill would: nothing is tidied."""

    def __init__(self, objective: Any, reports: int) -> None:
        self.objective, self.left = objective, reports

    def __call__(self, context: Any) -> Any:
        from dataclasses import replace

        def report(epoch: int, value: float) -> None:
            context.report(epoch, value)
            self.left -= 1
            if self.left == 0:
                raise Killed

        return self.objective(replace(context, report=report))
