"""The cells of a suite, cross-validation or confirmation: enqueued, trained by the queue's workers until none is left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from audio_cls.ablation.adoption import known_results, settle_copies
from audio_cls.core.device import choose_device
from audio_cls.core.notices import say
from audio_cls.core.stopping import Interrupted
from audio_cls.queue.cells import Cell, Cells, CellState, enqueue, read_cells, run_cells
from audio_cls.queue.storage import StudyStorage, load_study, open_study
from audio_cls.queue.tracked import settle_runs
from audio_cls.runs.model_log import log_models
from audio_cls.runs.own_parts import entry_files

if TYPE_CHECKING:
    from audio_cls.queue.options import QueueOptions
    from audio_cls.tracking import Tracker

__all__ = ["Filled", "cell_name", "convert_cells", "fill_cells", "unfinished", "why_failed"]


@dataclass(frozen=True)
class Filled:
    """The cells that were asked for, in that order. adopted: how many results were taken over from elsewhere just now, by where."""

    states: tuple[CellState, ...]
    adopted: dict[str, int]

    @property
    def left(self) -> int:
        """The number of cells that are not done."""
        return sum(not done(state) for state in self.states)

    @property
    def refused(self) -> list[str]:
        """Why cells were refused, each reason once."""
        return sorted({state.record.reason for state in self.states if state.state == "REFUSED"})

    @property
    def interrupted(self) -> bool:
        """Whether cells are left because the command was asked to leave."""
        return self.left > 0 and not self.refused


def cell_name(state: CellState) -> str:
    """Return the name of a cell's run in MLflow."""
    return str(state.record.cell["name"])


def why_failed(state: CellState) -> str:
    """Return why a cell failed, and where more of it is kept."""
    record = state.record
    return f"{record.reason}; the whole traceback is in {record.failure}" if record.failure else record.reason


def done(state: CellState) -> bool:
    """Whether a cell is complete or has failed."""
    return state.state in ("COMPLETE", "FAILED")


def fill_cells(
    work: Cells,
    cells: Sequence[Cell],
    tracker: Tracker,
    storage: StudyStorage,
    options: QueueOptions,
    *,
    again: Collection[str] = (),
    files: Sequence[Path] = (),
) -> Filled:
    """Train the cells that are not done with `options.workers` processes, until all are or somebody asks to leave.

    Results that are there already are taken over first, and named. Cells whose `id` is in `again` are trained again. Cells of the
    study besides these are left alone. `files` are loaded by the workers, besides those that declare parts of the experiments: they
    may declare further metrics.
    """
    study = open_study(work, storage)
    anew = [cell for cell in cells if cell.id in again]
    others = [cell for cell in cells if cell.id not in again]
    known = known_results(work, study, others, tracker, storage, choose_device(options.device))
    known = replace(known, cells=(*known.cells, *(replace(cell, former="") for cell in anew)))
    enqueue(study, storage, known.cells, known=known.records, again=again, rules=known.rules)
    settle_copies(known, study, tracker)
    sources = [str(known.records[cell].adopted_from.get("study")) for cell in known.copies]
    adopted = {source: sources.count(source) for source in sorted(set(sources))}
    for source, count in adopted.items():
        say(f"{count} of {len(cells)} runs are taken over from {source}: the same experiments on the same data")
    if not all(map(done, _states(work, cells, storage))):
        loaded = dict.fromkeys([*files, *entry_files(cell.experiment for cell in cells)])
        run_cells(work, known.cells, tracker.workspace, options, files=list(loaded), only=known.cells)
    settle_runs(tracker, None, study, "fold" if work.kind == "folds" else "cell")
    filled = Filled(tuple(_states(work, cells, storage)), adopted)
    if options.log_model == "all":
        complete = [s.record.mlflow_run_id for s in filled.states if s.state == "COMPLETE"]
        log_models(tracker, [run_id for run_id in complete if run_id])
    return filled


def convert_cells(work: Cells, cells: Sequence[Cell], tracker: Tracker, storage: StudyStorage) -> None:
    """Enqueue cells that an earlier version kept on disk, with their results; nothing is trained."""
    study = open_study(work, storage)
    known = known_results(work, study, cells, tracker, storage, None)
    enqueue(study, storage, known.cells, known=known.records, rules=known.rules)


def _states(work: Cells, cells: Sequence[Cell], storage: StudyStorage) -> list[CellState]:
    found = {state.id: state for state in read_cells(load_study(work.name, storage))}
    return [found[cell.id] for cell in cells]


def unfinished(filled: Filled, hint: str = "") -> Interrupted:
    """Return the exception by which a command leaves whose cells are not all done."""
    lines = [f"{filled.left} of {len(filled.states)} runs are left; the same command goes on with them"]
    return Interrupted("\n".join([*lines, hint] if hint else lines))
