"""A study's best configurations, run again on fresh seeds and folds: how much of their lead was luck?

The best of many noisy values is high partly by chance, and the more so the more were tried (regression to the mean): the value
that made a trial win is a biased estimate of what its configuration is worth. Each fresh run is judged by its last epoch, as the
runs of a suite are: neither the seed nor the epoch was chosen by the figure. Earlier versions judged by the best epoch, chosen on
the clips it is measured on; such a confirmation is ranked again by the last epoch, which its runs recorded too, and says so.
A confirmation is a suite whose arms are the trials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from statistics import fmean
from typing import TYPE_CHECKING, Any

from audio_cls.ablation.filling import Filled, fill_cells, unfinished
from audio_cls.ablation.looks import Looks, begin_looks, record_look, seen_by
from audio_cls.ablation.ranking import (
    SELECT,
    Candidate,
    Confirmed,
    Select,
    former_note,
    fresh_predictions,
    judged_by,
    rank,
    ranking_lines,
    ranking_table,
)
from audio_cls.ablation.record import cell_place, recorded_cell
from audio_cls.core.errors import UserError
from audio_cls.core.rng import CONFIRMATION_SEED
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.metrics.base import plain_name
from audio_cls.metrics.classification import check_metric
from audio_cls.queue.cells import Cell, Cells, read_cells
from audio_cls.queue.record import experiment_text
from audio_cls.queue.status import Row, StudyStatus, last_epoch_of, study_status
from audio_cls.queue.storage import StudyStorage, open_storage, open_study
from audio_cls.queue.work import Kind
from audio_cls.runs.folds import asked_folds, fold_label, grid_text
from audio_cls.runs.own_parts import recorded
from audio_cls.runs.preparation import dataset_info, mlflow_experiment, open_corpus
from audio_cls.runs.single import read_state, run_folder, run_key
from audio_cls.study.launches import LAUNCH
from audio_cls.study.opening import PARENT, open_by_name

if TYPE_CHECKING:
    from audio_cls.queue.options import QueueOptions
    from audio_cls.tracking import Run, Tracker

__all__ = [
    "Confirmation",
    "ConfirmationOutcome",
    "candidates",
    "confirm",
    "confirmation_cells",
    "plan_confirmation",
]

KIND: Kind = "confirmation"


@dataclass(frozen=True)
class Confirmation:
    """The best configurations of a study, to be run again. parent: the study's run in MLflow. size: of the grid, in words."""

    study: str
    metric: str
    chosen: tuple[Candidate, ...]
    corpus: Corpus
    cells: tuple[Cell, ...]
    size: str
    parent: str | None = None


@dataclass(frozen=True)
class ConfirmationOutcome:
    """The result of a confirmation. select: the epoch that its runs are judged by. baseline: the mean figure of a model that
    learned nothing on the same splits, NaN if unknown. note: what an earlier version recorded of it otherwise, in a sentence. looks: how
    often its verdicts were looked at; None where there are none.
    """

    plan: Confirmation
    filled: Filled
    ranked: tuple[Confirmed, ...]
    select: Select
    baseline: float
    note: str = ""
    looks: Looks | None = None

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Return columns and rows of the new ranking, in points where the metric is a share."""
        return ranking_table(self.plan.chosen, self.ranked, self.plan.metric, self.select)

    def lines(self) -> list[str]:
        """Return the verdicts and what regressed, in sentences."""
        said = ranking_lines(self.plan.chosen[0], self.ranked, self.plan.metric, self.select, self.baseline, self.looks)
        return [*([self.note] if self.note else []), *said]


def candidates(status: StudyStatus, top: int) -> list[Candidate]:
    """Return the best complete configurations of a study, the best first, each experiment once.

    Raises:
        UserError: if there is none, or for trials that audio_cls did not run.
    """
    found: dict[str, Candidate] = {}
    for row in status.rows:
        if row.state == "COMPLETE" and row.value is not None and len(found) < top:
            experiment = _experiment(status, row)
            last = last_epoch_of(row, status.metric)
            candidate = Candidate(row.number, row.value, experiment, row.params, nan if last is None else last)
            found.setdefault(experiment.digest(), candidate)
    if not found:
        raise UserError(
            f"study {status.name!r} has no complete configuration yet: {status.finished} finished, {status.running} running"
        )
    return list(found.values())


def _experiment(status: StudyStatus, row: Row) -> Experiment:
    if not row.record.experiment:
        raise UserError(
            f"study {status.name!r}: trial {row.number} was not run by audio_cls: no experiment is stored with it"
        )
    return Experiment.from_json(experiment_text(row.record.experiment), f"trial {row.number}")


def plan_confirmation(
    reference: str, tracker: Tracker, options: QueueOptions, *, top: int, seeds: int, folds: str | None
) -> Confirmation:
    """Return the runs that confirm the `top` best configurations of a study, given by its name or its file.

    Raises:
        UserError: for a study that is not there or has no complete configuration, or folds that the split does not have.
    """
    workspace = tracker.workspace
    opened = open_by_name(reference, open_storage(options.storage or workspace.optuna_db, must_exist=True))
    status = study_status(opened)
    digests = list(dict.fromkeys(digest for row in status.rows for digest in row.record.sources))
    launch = opened.user_attrs.get(LAUNCH)
    files = [workspace.root / launch["file"]] if launch else []
    chosen = recorded(lambda: candidates(status, top), workspace, digests, files, f"study {status.name}")
    corpus = open_corpus(workspace, chosen[0].experiment.data)
    cells = confirmation_cells(status.name, chosen, corpus, seeds, folds)
    n_folds = len({cell.params["fold"] for cell in cells})
    size = grid_text(configurations=len(chosen), seeds=seeds, folds=n_folds)
    parent = opened.user_attrs.get(PARENT)
    return Confirmation(status.name, status.metric, tuple(chosen), corpus, tuple(cells), size, parent)


def confirmation_cells(
    study: str, chosen: Sequence[Candidate], corpus: Corpus, seeds: int, folds: str | None
) -> list[Cell]:
    """Return the runs by seed, fold and candidate (fold 0: the split as it was)."""
    cells = []
    fold_key, values = asked_folds(chosen[0].experiment, corpus, folds)
    names = chosen[0].experiment.data.split.folds(corpus) if fold_key else {}
    for seed in range(CONFIRMATION_SEED, CONFIRMATION_SEED + seeds):
        for fold in values:
            for candidate in chosen:
                changes: dict[str, Any] = {"seed": seed}
                if fold_key is not None:
                    changes[fold_key] = fold
                experiment = candidate.experiment.override(changes)
                arm = f"trial {candidate.trial}"
                key = run_key(experiment.digest(), corpus.digest)
                cells.append(
                    Cell(
                        params={"arm": arm, "seed": seed, "fold": fold or 0},
                        experiment=experiment,
                        key=key,
                        name=f"{arm} seed {seed}" + (f" {fold_label(fold, names[fold])}" if fold is not None else ""),
                        tags={"study": study, "seed": str(seed), "fold": str(fold or 0)},
                        run_params={"confirmed.trial": str(candidate.trial), "confirmed.study": study},
                        former=f"{key}-confirm",
                    )
                )
    return cells


def confirm(plan: Confirmation, tracker: Tracker, options: QueueOptions) -> ConfirmationOutcome:
    """Train the runs that are missing, rank the configurations again, and record it below one run in MLflow.

    Raises:
        Interrupted: when asked to leave before all are done; the same call continues.
    """
    storage = open_storage(options.storage or tracker.workspace.optuna_db)
    work = Cells(f"{KIND}:{plan.study}", KIND, plan.metric, check_metric(plan.metric), {"data": plan.corpus.digest})
    opened = open_study(work, storage)
    with storage.lock(work.name):
        parent = _open_parent(plan, tracker, opened.user_attrs.get(PARENT))
        opened.set_user_attr(PARENT, parent.id)
        if SELECT not in opened.user_attrs:
            begun = bool(read_cells(opened))
            opened.set_user_attr(SELECT, ["best", "last"] if begun else ["last"])
            if not begun:
                begin_looks(work.name, storage)
    cells = [replace(cell, parent=parent.id) for cell in plan.cells]
    filled = fill_cells(work, cells, tracker, storage, options)
    if filled.interrupted:
        parent.finish("INTERRUPTED", f"{filled.left} of {len(cells)} runs are left")
        tracker.flush()
        raise unfinished(filled)
    select = judged_by(filled.states, plan.metric)
    predictions = fresh_predictions(filled.states, tracker, plan.corpus, select)
    ranked = rank(plan.chosen, filled.states, plan.corpus, plan.metric, select, predictions)
    looks = None if filled.left else _look(filled, ranked, storage, work.name)
    plain = plain_name(plan.metric)
    baseline = [s.record.baseline[plain] for s in filled.states if plain in s.record.baseline]
    learned_nothing, note = fmean(baseline) if baseline else nan, former_note(opened.user_attrs)
    outcome = ConfirmationOutcome(plan, filled, tuple(ranked), select, learned_nothing, note, looks)
    best = next((c for c in ranked if isfinite(c.mean.mean)), None)
    if best is not None:
        parent.final({f"mean/{plain}": best.mean.mean, "final/searched": best.candidate.searched})
        parent.artifact_text("experiment.json", best.candidate.experiment.to_json())
        parent.tags({"select": select})
        parent.artifact_text("confirmation.txt", "\n".join(outcome.lines()))
    parent.finish("INTERRUPTED" if filled.left else "COMPLETE", "; ".join(filled.refused))
    tracker.flush()
    return outcome


def _look(filled: Filled, ranked: Sequence[Confirmed], storage: StudyStorage, study: str) -> Looks | None:
    """Record that the verdicts of a finished confirmation are looked at; None where there is nothing to compare."""
    compared = {f"trial {c.candidate.trial}": c.comparison for c in ranked if c.comparison is not None}
    if not compared:
        return None
    records = [recorded_cell(*cell_place(state), state) for state in filled.states]
    return record_look(seen_by(records, compared), study, storage, write=True)


def _open_parent(plan: Confirmation, tracker: Tracker, run_id: str | None) -> Run:
    if run_id is None:  # of earlier versions
        tag = hashlib.sha256("".join(cell.former for cell in plan.cells).encode()).hexdigest()[:12]
        run_id = read_state(run_folder(tracker.workspace, f"confirm-{plan.study}-{tag}")).run_id
    trials = ", ".join(str(c.trial) for c in plan.chosen)
    return tracker.on(dataset_info(plan.corpus)).start(
        mlflow_experiment(plan.corpus), f"confirm {plan.study}", kind=KIND, parent=plan.parent,
        params=plan.chosen[0].experiment.flatten(), run_id=run_id,
        tags={"study": plan.study, "trials": trials, "data.digest": plan.corpus.digest},
    )  # fmt: skip
