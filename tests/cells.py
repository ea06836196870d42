"""Cells of a suite worked in this process, without workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from audio_cls.ablation.running import start_suite
from audio_cls.ablation.stored import suite_work
from audio_cls.ablation.suite import Suite, suite_cells
from audio_cls.queue.cells import Cell, Cells, CellState, cell_objective, enqueue, read_cells
from audio_cls.queue.storage import open_storage, open_study
from audio_cls.queue.worker import Shift, run_worker
from audio_cls.runs.preparation import Runtime
from audio_cls.tracking import Run, Tracker


def run_here(
    work: Cells, cells: Sequence[Cell], tracker: Tracker, first: int | None = None, again: Sequence[str] = ()
) -> list[CellState]:
    """Enqueue cells and run the `first` of them, or all."""
    torch.set_num_threads(1)
    runtime = Runtime(tracker.workspace, tracker, torch.device("cpu"))
    storage = open_storage(tracker.workspace.optuna_db)
    study = open_study(work, storage)
    enqueue(study, storage, cells, again=again)
    only = range(len(cells) if first is None else first)
    objective = cell_objective(runtime, work.kind)
    run_worker(work, tracker.workspace.root, len(cells), objective, shift=Shift(only=only))
    return read_cells(study)


def run_suite_here(suite: Suite, first: int | None = None) -> tuple[Suite, Run, dict[str, Run]]:
    """Start a suite and run the `first` of its cells, or all; its runs in MLflow stay open."""
    suite = replace(suite, storage=open_storage(suite.workspace.optuna_db))
    parent, arms = start_suite(suite)
    states = run_here(suite_work(suite.state), suite_cells(suite), suite.tracker, first)
    done: list[Any] = [s for s in states if s.state == "COMPLETE"]
    assert len(done) == (len(states) if first is None else first), [s.record.reason for s in states]
    return suite, parent, arms
