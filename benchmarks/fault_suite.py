"""The suite of the fault campaign: cells of 3 arms x 2 seeds x 3 folds, as an ablation has them; more seeds when it is extended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "ablation:faults"
FIRST = 18  # cells of two seeds
EACH = 9  # cells of a seed
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mixup": {"augment.mixup.alpha": 0.3},
    "slow": {"optimizer.lr": 3e-4},
}


def suite_work() -> Any:
    """The work of the suite, for the queue."""
    from audio_cls.queue.cells import Cells

    return Cells(NAME, "ablation", "val/macro_f1", "maximize")


def suite_cells(base: Any, total: int) -> list[Any]:
    """`total` cells, whole seeds of them."""
    from audio_cls.queue.cells import Cell

    cells = []
    for seed in range(total // EACH):
        for fold in (1, 2, 3):
            for arm, changes in ARMS.items():
                split = {"data.split.kind": "k_fold", "data.split.k": 3, "data.split.fold": fold}
                experiment = base.override({**split, **changes, "seed": seed})
                name = f"{arm} seed {seed} fold {fold}"
                tags = {"config": name}
                cells.append(Cell({"arm": arm, "seed": seed, "fold": fold}, experiment, name, name, tags))
    return cells


def open_suite(runtime: Any, base: Any, storage: str, total: int) -> tuple[Any, Any]:
    """Enqueue what is missing, as each worker of each box may; the work and its objective."""
    from audio_cls.queue.cells import cell_objective, enqueue
    from audio_cls.queue.storage import open_storage, open_study

    work = suite_work()
    opened = open_storage(storage)
    enqueue(open_study(work, opened), opened, suite_cells(base, total))
    return work, cell_objective(runtime, "ablation")


def suite_curves(storage: str) -> dict[str, tuple[str, dict[int, float]]]:
    """State and curve of each cell."""
    from audio_cls.queue.cells import read_cells
    from audio_cls.queue.storage import load_study, open_storage

    study = load_study(NAME, open_storage(storage))
    curves = {t.number: dict(sorted(t.intermediate_values.items())) for t in study.get_trials(deepcopy=False)}
    return {s.id: (s.state, curves[s.number]) for s in read_cells(study)}


def undisturbed(workspace: Path, base: Any, features: Any, total: int) -> dict[str, tuple[str, dict[int, float]]]:
    """State and curve of each cell of a suite that one worker runs with nothing in its way."""
    import torch

    from audio_cls.core.workspace import Workspace
    from audio_cls.queue.options import QueueOptions
    from audio_cls.queue.worker import run_worker
    from audio_cls.runs.preparation import Runtime
    from audio_cls.tracking import Tracker

    place = Workspace(workspace)
    runtime = Runtime(place, Tracker(place), torch.device("cpu"))
    runtime.features = features or runtime.features
    storage = f"sqlite:///{workspace}/optuna.db"
    work, objective = open_suite(runtime, base, storage, total)
    run_worker(work, workspace, total, objective, QueueOptions(storage))
    return suite_curves(storage)
