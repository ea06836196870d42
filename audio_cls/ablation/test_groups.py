"""Runs whose test split is opened together: those of a suite, of a cross-validation or of a confirmation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from audio_cls.ablation.declaration import Cell
from audio_cls.ablation.record import folder_of, read_records
from audio_cls.ablation.recorded_contract import check_records
from audio_cls.core.errors import UserError
from audio_cls.runs.opened_clips import named

if TYPE_CHECKING:
    from audio_cls.ablation.suite import Suite
    from audio_cls.data.splits import Split
    from audio_cls.tracking import RunInfo, Tracker

__all__ = ["Group", "of_parent", "of_suite", "suite_splits"]


@dataclass(frozen=True)
class Group:
    """Runs that are opened together. runs: arm -> (seed, fold) -> run. parent: the run of the whole. chosen: by whom the arms
    were made and on which validation metric they are judged. folder: of a run's checkpoint, by arm and cell. choosing: runs whose
    validation clips chose what the arms are, before these runs: those of a search."""

    name: str
    parent: RunInfo
    runs: Mapping[str, Mapping[Cell, RunInfo]]
    metrics: tuple[str, ...]
    weights: Literal["best", "last"]
    chosen: str
    reference: str | None = None
    margin: float | None = None
    arm_runs: Mapping[str, str] = field(default_factory=dict)
    folder: Callable[[str, Cell], Path | None] = lambda arm, cell: None
    choosing: tuple[RunInfo, ...] = ()

    @property
    def cells(self) -> list[tuple[str, Cell, RunInfo]]:
        """Every run with its arm and cell, arm by arm."""
        return [(arm, cell, run) for arm, cells in self.runs.items() for cell, run in sorted(cells.items())]

    @property
    def what(self) -> str:
        """How its openings are told from those of others: a suite by its name, anything else by its run."""
        return self.name if self.parent.tags.get("kind") == "suite" else named(self.parent)


def of_suite(suite: Suite) -> Group:
    """Return a suite's runs.

    Raises:
        UserError: while runs are left: what the test split shows must not reach what is still to be trained.
    """
    ablation = suite.ablation
    records = read_records(ablation, suite.plan, suite.study, suite.storage, suite.tracker)
    check_records(ablation, suite.plan, records)
    left = [r.words for r in records if not r.done]
    if left or not suite.state.run_id:
        raise UserError(
            f"suite {ablation.name!r}: {len(left)} of {len(records)} runs are left ({left[0]}, ...): run it to its end "
            "first. Once its test split has been opened it cannot grow"
        )
    folders = {(r.arm, r.cell): folder_of(r, suite.workspace.root) for r in records}
    runs: dict[str, dict[Cell, RunInfo]] = {arm: {} for arm in ablation.arms}
    known = {r.run_id: r for r in suite.tracker.runs(None, f"params.`ablation.suite` = '{ablation.name}'")}
    for record in records:
        if record.state == "COMPLETE" and record.run_id in known:
            runs[record.arm][record.cell] = known[record.run_id]
    epoch = "the last epoch" if ablation.select == "last" else "the best epoch"
    return Group(
        f"suite {ablation.name}",
        suite.tracker.resolve(suite.state.run_id),
        runs,
        tuple(ablation.metrics),
        ablation.select,
        f"{len(ablation.arms)} arms declared beforehand, each judged by {ablation.metrics[0]} of {epoch} on validation clips",
        ablation.reference,
        ablation.margin,
        suite.state.arms,
        lambda arm, cell: folders[arm, cell],
        tuple(run for (_, fold), run in runs[ablation.reference].items() if fold == suite.plan.folds[0])
        if ablation.tune
        else (),
    )


def suite_splits(suite: Suite) -> list[Split]:
    """Return the split of each fold of a suite."""
    declared = suite.ablation
    experiments = (declared.experiment(declared.reference, 0, fold) for fold in suite.plan.folds)
    return [experiment.data.assign(suite.corpus) for experiment in experiments]


def of_parent(tracker: Tracker, parent: RunInfo) -> Group:
    """Return the runs below a cross-validation or a confirmation, by their best epochs' weights.

    Raises:
        UserError: when none below it is complete, or some are under way.
    """
    below = tracker.runs(None, f"tags.mlflow.parentRunId = '{parent.run_id}'")
    left = [r.name for r in below if r.state in ("RUNNING", "INTERRUPTED")]
    if left or not below:
        raise UserError(
            f"{parent.name}: {len(left)} of {len(below)} runs below it are not finished: run it to its end first"
        )
    runs: dict[str, dict[Cell, RunInfo]] = {}
    for run in below:
        if run.state == "COMPLETE":
            trial = run.params.get("confirmed.trial")
            arm = f"trial {trial}" if trial else parent.name
            runs.setdefault(arm, {})[int(run.tags.get("seed", 0)), int(run.tags.get("fold", 0))] = run
    some = next((run for cells in runs.values() for run in cells.values()), None)
    if some is None:
        raise UserError(f"{parent.name}: no run below it is COMPLETE")
    metric = some.params.get("training.metric", "val/accuracy")
    study = parent.tags.get("study")
    chosen = (
        f"{len(runs)} best configurations of the study {study!r}" if study else "one configuration, given by its user"
    )
    return Group(
        parent.name,
        parent,
        runs,
        tuple(dict.fromkeys([metric, "val/accuracy", "val/macro_f1"])),
        "best",
        f"{chosen}; the epoch of each run by {metric} on its validation clips",
        choosing=tuple(tracker.runs(None, f"tags.study = '{study}' and tags.kind = 'trial'")) if study else (),
    )
