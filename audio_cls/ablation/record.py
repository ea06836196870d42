"""What the cells of a suite recorded: figures and facts from the queue, parameters and tags from MLflow to be checked against them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.ablation.contract import Plan
from audio_cls.ablation.declaration import Ablation, Cell
from audio_cls.metrics.base import plain_name
from audio_cls.queue.cells import CellState, read_cells
from audio_cls.queue.record import experiment_text
from audio_cls.queue.storage import load_study, study_names

if TYPE_CHECKING:
    from audio_cls.metrics.predictions import Predictions
    from audio_cls.queue.storage import StudyStorage
    from audio_cls.tracking import Tracker

__all__ = ["Recorded", "cell_place", "folder_of", "openings", "read_records", "recorded_cell", "with_figures"]


@dataclass(frozen=True)
class Recorded:
    """One cell as it was recorded. `facts` are those of `preparation.run_facts` (empty before it has started); `params` and `tracked`
    (tags) are what MLflow says, empty if it cannot be asked. folder: of its checkpoint, relative to the workspace.
    collapsed: why its "best" and "last" epoch have collapsed."""

    arm: str
    seed: int
    fold: int
    state: str
    reason: str
    run_id: str | None
    experiment: dict[str, Any]
    facts: dict[str, str]
    metrics: dict[str, float]
    last: dict[str, float]
    cost: dict[str, float]
    params: dict[str, str] = field(default_factory=dict)
    tracked: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    adopted_from: dict[str, Any] = field(default_factory=dict)
    collapsed: dict[str, str] = field(default_factory=dict)

    @property
    def cell(self) -> Cell:
        return self.seed, self.fold

    @property
    def done(self) -> bool:
        return self.state in ("COMPLETE", "FAILED")

    @property
    def words(self) -> str:
        return f"arm {self.arm!r}, seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")

    def figure(self, metric: str, select: str) -> float | None:
        """Return the run's figure; NaN for one that failed (leaving it out would flatter its arm), None while not done."""
        if not self.done:
            return None
        values = self.last if select == "last" else self.metrics
        return values.get(plain_name(metric), nan) if self.state == "COMPLETE" else nan


def recorded_cell(arm: str, seed: int, fold: int, found: CellState | None, run: Any = None) -> Recorded:
    """Return the record of a cell from its state in the queue (None: not enqueued yet) and its run in MLflow."""
    if found is None:
        return Recorded(arm, seed, fold, "NEW", "", None, {}, {}, {}, {}, {})
    record = found.record
    return Recorded(
        arm, seed, fold, found.state, record.reason, run.run_id if run else record.mlflow_run_id,
        json.loads(experiment_text(record.experiment)) if record.experiment else {},
        dict(record.facts), dict(record.metrics), dict(record.last), dict(record.cost),
        run.params if run else {}, run.tags if run else {}, record.folder, dict(record.adopted_from),
        dict(record.collapsed),
    )  # fmt: skip


def read_records(
    ablation: Ablation, plan: Plan, study: str, storage: StudyStorage | None, tracker: Tracker | None = None
) -> list[Recorded]:
    """Read the cells of a plan as they stand, in its order, with what MLflow says of them when a tracker is given."""
    tracked: dict[str, Any] = {}
    if tracker is not None:
        query = f"params.`ablation.suite` = '{ablation.name}' and tags.kind = 'cell'"
        for run in tracker.runs(filter=query):
            tracked[run.run_id] = tracked[run.tags.get("local_uid", run.run_id)] = run
    begun = storage is not None and study in study_names(storage, None)
    found = {cell_place(c): c for c in read_cells(load_study(study, storage))} if storage is not None and begun else {}
    records = []
    for p in plan.cells:
        state = found.get((p.arm, p.seed, p.fold))
        info = tracked.get(str(state.record.mlflow_run_id)) if state is not None else None
        records.append(recorded_cell(p.arm, p.seed, p.fold, state, info))
    return records


def with_figures(
    records: Sequence[Recorded], predictions: Mapping[str, Mapping[Cell, Predictions]], ablation: Ablation
) -> list[Recorded]:
    """Return the records with the figures of the suite's metrics that runs of earlier versions lack, from their stored predictions
    (arm -> (seed, fold) -> of the epoch that the suite judges by): NLL and Brier score were not recorded then.
    """
    which = "last" if ablation.select == "last" else "metrics"
    out = []
    for record in records:
        made, had = predictions.get(record.arm, {}).get(record.cell), getattr(record, which)
        plain = [plain_name(metric) for metric in ablation.metrics]
        if made is not None and any(name not in had for name in plain):
            overall = made.evaluation.overall
            had = {**{name: overall[name] for name in plain if name in overall}, **had}
        out.append(replace(record, **{which: had}))
    return out


def cell_place(state: CellState) -> tuple[str, int, int]:
    """Return (arm, seed, fold) of a cell in the queue."""
    return str(state.params["arm"]), int(state.params["seed"]), int(state.params["fold"])


def folder_of(record: Recorded, root: Path) -> Path | None:
    """Return the folder of a cell's checkpoint in a workspace; None if it is unknown."""
    return root / record.folder if record.folder else None


def openings(records: Sequence[Recorded]) -> list[str]:
    """Return a line for the runs whose test split has been opened: those opened together are named together."""
    together: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if r.tracked.get("test.openings"):
            key = r.tracked["test.openings"], r.tracked.get("test.first_opened", "unknown")
            together.setdefault(key, []).append(r.words)
    return [
        f"{words[0]}{f' and {len(words) - 1} more runs' if len(words) > 1 else ''}: opened {count} time(s), first {first}"
        for (count, first), words in together.items()
    ]
