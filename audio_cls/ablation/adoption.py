"""Results that are there already: of the same experiment on the same data in another suite, or kept on disk by earlier versions.

A cell that another suite, cross-validation or single run has finished is not trained again. Its figures are taken over, and its
run in MLflow is copied below the arm, so that views, pages and `evaluate --test` find it; tags say where it comes from.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import torch

from audio_cls.core.device import choose_precision
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.metrics.classification import VERSION
from audio_cls.queue.cells import Cell, Cells, begun_rules, finished_cells, read_cells
from audio_cls.queue.record import TrialRecord
from audio_cls.runs.preparation import open_corpus
from audio_cls.runs.single import RunState, read_state, run_folder
from audio_cls.tracking.copy import discard, make_run, purge, run_artifacts, run_record, settle
from audio_cls.training.rules import ACCUMULATED, CORRECTIONS, FORMER, RULES, corrections

if TYPE_CHECKING:
    from audio_cls.queue.storage import StudyStorage
    from audio_cls.tracking import Tracker

__all__ = ["ADOPTED", "Known", "known_results", "settle_copies"]

log = logging.getLogger(__name__)

ADOPTED = "adopted_from"  # tag of a run that is a copy: whose result it is
_OF_THE_SOURCE = ("ablation.", "confirmed.", "study", "mlflow.runColor", "local_uid", "fold")
"""Parameters and tags that say where a run belongs: a copy gets its own."""


@dataclass(frozen=True)
class Known:
    """Results for cells that need no training, by `Cell.id`.

    cells: all cells, those with a started run of an earlier version carrying its id. copies: the runs that were copied, by `Cell.id`.
    rules: the version of the training rules by which the list goes on or begins.
    """

    cells: tuple[Cell, ...]
    records: Mapping[str, TrialRecord]
    copies: Mapping[str, str]
    marker: str
    rules: int


def known_results(
    work: Cells, study: Any, cells: Sequence[Cell], tracker: Tracker, storage: StudyStorage, device: torch.device | None
) -> Known:
    """Find results for the cells that the study does not have yet.

    Args:
        device: on which the others are trained. A result of another kind of device or precision is not taken over, nor one
            whose test split has been opened, nor one that other training rules changed. None takes over nothing but what this
            very study has on disk.
    """
    marker = f"{work.name} in {os.uname().nodename}:{tracker.workspace.root}"
    there = {state.id: state for state in read_cells(study)}
    with contextlib.suppress(UserError):  # copies of an earlier process that was killed
        purge(tracker, marker, {str(state.record.mlflow_run_id) for state in there.values()})
    missing = [cell for cell in cells if cell.id not in there]
    rules = begun_rules(state.record for state in there.values())
    if rules is None:
        rules = FORMER if any(_own(tracker, cell) for cell in missing) else RULES
    elsewhere = finished_cells(storage, [cell.key for cell in missing], besides=work.name) if missing else {}
    records: dict[str, TrialRecord] = {}
    copies: dict[str, str] = {}
    begun: dict[str, Cell] = {}
    for cell in missing:
        own = _own(tracker, cell)
        if own is not None and own.done:
            records[cell.id] = _record_of(own, tracker.workspace, cell.former)
            continue
        if own is not None and own.run_id is not None:
            begun[cell.id] = replace(cell, run_id=own.run_id)
        if device is None:
            continue
        single = _former(tracker.workspace, cell.key)
        found = [elsewhere[cell.key]] if cell.key in elsewhere else []
        found += [_record_of(single, tracker.workspace, cell.key)] if single is not None and single.done else []
        for record in found:
            if _fits(record, cell, device, tracker.workspace, rules) and (
                run_id := _copy(tracker, record, cell, work.kind, marker, rules)
            ):
                copies[cell.id] = run_id
                source: dict[str, Any] = {"study": "a single run", **record.adopted_from, "run": record.mlflow_run_id}
                records[cell.id] = replace(record, mlflow_run_id=run_id, adopted_from=source, findings=record.findings)
                break
    return Known(tuple(begun.get(cell.id, cell) for cell in cells), records, copies, marker, rules)


def settle_copies(known: Known, study: Any, tracker: Tracker) -> None:
    """Keep the copied runs that the study took, and discard those that another machine was faster with."""
    if not known.copies:
        return
    taken = {str(state.record.mlflow_run_id) for state in read_cells(study)}
    settle(tracker, [run_id for run_id in known.copies.values() if run_id in taken])
    discard(tracker, [run_id for run_id in known.copies.values() if run_id not in taken])


def _fits(record: TrialRecord, cell: Cell, device: torch.device, workspace: Workspace, rules: int) -> bool:
    """Whether a result was computed as the cell would be: same experiment, split, kind of device, precision and metrics, and what the
    training rules correct in it.
    """
    experiment = cell.experiment
    assert isinstance(experiment, Experiment)
    wanted = {
        "experiment.digest": experiment.digest(),
        "metric.version": str(VERSION),
        "device.kind": device.type,
        "precision": choose_precision(experiment.training.precision, device),
    }
    if record.outcome != "complete" or any(record.facts.get(key) != value for key, value in wanted.items()):
        return False
    corpus = open_corpus(workspace, experiment.data)
    split = experiment.data.assign(corpus)
    if corpus.identical and split.digest != record.facts.get("split.digest"):
        return False  # identical clips may have been on two sides of its split
    return record.facts.get(CORRECTIONS, "") == corrections(experiment, len(split.train), rules)


def _own(tracker: Tracker, cell: Cell) -> RunState | None:
    """Return what an earlier version kept on disk of this very cell; a single run of the same experiment is none of it."""
    found = _former(tracker.workspace, cell.former)
    if found is not None and found.run_id is not None and not _belongs(tracker, found.run_id, cell):
        return None
    return found


def _belongs(tracker: Tracker, run_id: str, cell: Cell) -> bool:
    """Whether a run lies where the cell's own would; taken for granted where MLflow cannot be asked."""
    try:
        return tracker.resolve(run_id).parent == cell.parent
    except UserError:
        return True


def _copy(tracker: Tracker, record: TrialRecord, cell: Cell, kind: str, marker: str, rules: int) -> str | None:
    """Copy the run of a result to where the cell's own would lie; None if it cannot be had or must not be taken."""
    try:
        stored = run_record(tracker, str(record.mlflow_run_id))
        if stored is None or stored["tags"].get("test.openings"):
            return None
        by_present = ACCUMULATED in stored["tags"]
        if "accumulate" in stored["tags"] and by_present != (rules != FORMER):
            return None  # its batches were trained in parts, whose gradients were put together otherwise
        params = {k: v for k, v in stored["params"].items() if not k.startswith(_OF_THE_SOURCE)} | dict(cell.run_params)
        tags = {k: v for k, v in stored["tags"].items() if not k.startswith(_OF_THE_SOURCE)}
        stored |= {"name": cell.name, "params": params, "tags": tags}
        whose = f"{record.adopted_from.get('study', 'a single run')}, run {stored['run_id']}"
        parent = cell.parent
        if parent is not None and parent.startswith("local-"):
            parent = tracker.resolve(parent).run_id
        own = {**cell.tags, "kind": "fold" if kind == "folds" else "cell", ADOPTED: whose}
        with run_artifacts(tracker, stored["run_id"]) as files:
            name, path = files[0]
            folder = path.parents[len(PurePosixPath(name).parts) - 1]
            return make_run(tracker, stored, folder, parent, marker, own)
    except (UserError, OSError, IndexError) as error:
        log.warning("%s is trained again, since its finished run cannot be copied: %s", cell.name, error)
        return None


# -- what earlier versions kept in checkpoints/runs -----------------------------------------------------------------


def _former(workspace: Workspace, key: str) -> RunState | None:
    """Read the state that an earlier version, or a single run, kept in a folder; None if there is none."""
    if not key or not (run_folder(workspace, key) / "run.json").exists():
        return None
    return read_state(run_folder(workspace, key))


def _record_of(state: RunState, workspace: Workspace, key: str) -> TrialRecord:
    return TrialRecord(
        ready=True,
        outcome=state.state.lower(),
        reason=state.reason,
        experiment=json.dumps(state.experiment),
        mlflow_run_id=state.run_id,
        folder=run_folder(workspace, key).relative_to(workspace.root).as_posix(),
        metrics=state.metrics,
        last=state.last,
        facts=state.facts,
        cost=state.cost,
        baseline=state.baseline,
        findings=tuple(state.findings),
        collapsed=state.collapsed,
        failure=state.failure,
        epochs=state.epoch + 1,
        value=state.value,
    )
