"""Lists of cells: enqueued exactly once, extended, refused alone, killed and taken over; to the same figures as undisturbed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.queue.cells import Cell, Cells, Enqueued, enqueue, finished_cells, read_cells
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.process import WorkTarget
from audio_cls.queue.queue import Queue, Tally
from audio_cls.queue.record import TrialRecord
from audio_cls.queue.seam import TrialContext
from audio_cls.queue.status import study_status, summary
from audio_cls.queue.storage import load_study, open_storage, open_study, study_names
from audio_cls.queue.supervisor import run_workers
from audio_cls.runs.outcome import Outcome
from tests.study_fakes import FakeObjective, Toy, declare, work

FORK = multiprocessing.get_context("fork")
ROOT = str(Path(__file__).resolve().parents[2])
NAME = "ablation:toy"


def cells_work(**changes: Any) -> Cells:
    settings: dict[str, Any] = {"name": NAME, "kind": "ablation", "metric": "val/macro_f1", "direction": "maximize"}
    return Cells(**{**settings, "parse": Toy.from_json, **changes})


def grid(arms: tuple[str, ...] = ("a", "b"), seeds: int = 2, folds: tuple[int, ...] = (1, 2)) -> list[Cell]:
    return [
        Cell(
            {"arm": arm, "seed": seed, "fold": fold},
            Toy(x=0.1 * (1 + seed) + 0.01 * fold + 0.002 * len(arm) + (0.3 if arm == "b" else 0.0)),
            key=f"{arm}-{seed}-{fold}",
            name=f"{arm} {seed} {fold}",
        )
        for seed in range(seeds)
        for fold in folds
        for arm in arms
    ]


def _enqueue(folder: Path, cells: list[Cell], **settings: Any) -> Enqueued:
    storage = open_storage(folder / "optuna.db")
    return enqueue(open_study(cells_work(), storage), storage, cells, **settings)


def _run(folder: Path, objective: Any = None, **settings: Any) -> Any:
    settings = {"poll_seconds": 0.05, "max_deaths": 99, **settings}
    return work(cells_work(), folder, 1, objective or FakeObjective(folder / "runs"), **settings)


def _study(folder: Path) -> Any:
    return load_study(NAME, open_storage(folder / "optuna.db", must_exist=True))


def figures(folder: Path) -> dict[str, Any]:
    """Value and curve of each cell."""
    latest = Tally.of(_study(folder).get_trials(deepcopy=False)).latest.values()
    return {
        json.dumps(t.params, sort_keys=True): (t.state.name, t.value, dict(sorted(t.intermediate_values.items())))
        for t in latest
    }


def _epochs(folder: Path) -> Counter[str]:
    lines = (folder / "runs/epochs.log").read_text().splitlines()
    return Counter(" ".join(line.split()[:3:2]) for line in lines)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    _enqueue(folder, grid())
    assert _run(folder).ended == {"COMPLETE": 8}
    return figures(folder)


def test_a_cell_shows_its_parameters_to_optuna(tmp_path: Path) -> None:
    assert _enqueue(tmp_path, grid()) == Enqueued(8, added=8)
    command = [str(Path(sys.executable).with_name("optuna")), "trials", "--study-name", NAME, "-f", "json"]
    done = subprocess.run(
        [*command, "--storage", f"sqlite:///{tmp_path / 'optuna.db'}"], capture_output=True, text=True, check=True
    )
    shown = json.loads(done.stdout)
    assert [t["params"] for t in shown] == [dict(cell.params) for cell in grid()]
    assert {t["state"] for t in shown} == {"WAITING"}


def test_searches_and_cells_are_told_apart(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "optuna.db")
    open_study(declare(), storage)
    _enqueue(tmp_path, grid())
    assert study_names(storage) == ["toy"]
    assert study_names(storage, "ablation") == [NAME]
    assert study_names(storage, None) == [NAME, "toy"]
    with pytest.raises(UserError, match=r"'ablation:toy'.* of the kind ablation, the declaration is of the kind folds"):
        open_study(cells_work(kind="folds"), storage)
    with pytest.raises(UserError, match="data: 'x' -> 'y'"):
        open_study(cells_work(facts={"data": "y"}), _with_facts(storage))


def _with_facts(storage: Any) -> Any:
    open_study(cells_work(), storage, extra={"data": "x"})
    return storage


def test_a_list_is_enqueued_once_by_many_processes(tmp_path: Path) -> None:
    open_storage(tmp_path / "optuna.db")
    team = [FORK.Process(target=_enqueue, args=(tmp_path, grid())) for _ in range(4)]
    for process in team:
        process.start()
    for process in team:
        process.join(60)
    assert [p.exitcode for p in team] == [0] * 4
    assert [s.id for s in read_cells(_study(tmp_path))] == [c.id for c in grid()]
    assert len(_study(tmp_path).trials) == 8


def test_two_workers_one_killed_give_the_undisturbed_figures(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    _enqueue(tmp_path, grid())

    def run() -> None:
        _run(tmp_path, FakeObjective(tmp_path / "runs", 0.02))

    team = [FORK.Process(target=run) for _ in range(2)]
    for process in team:
        process.start()
    while not (tmp_path / "runs/epochs.log").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    assert team[0].pid is not None
    os.kill(team[0].pid, signal.SIGKILL)
    for process in team:
        process.join(60)
    assert figures(tmp_path) == undisturbed
    assert max(_epochs(tmp_path).values()) <= 2, "at most the epoch of the killed worker is trained twice"
    assert sum(_epochs(tmp_path).values()) <= 8 * 6 + 1
    before = _epochs(tmp_path)
    assert _run(tmp_path).ended == {}
    assert _epochs(tmp_path) == before, "a cell that is done is never trained again"


def test_the_supervisor_is_killed_and_the_command_given_again(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", ROOT)
    supervisor = FORK.Process(target=supervise, args=(tmp_path, 0.1))
    supervisor.start()
    while not (tmp_path / "runs/epochs.log").exists():
        time.sleep(0.02)
    supervisor.kill()
    supervisor.join()
    time.sleep(0.5)
    status = supervise(tmp_path, 0.0)
    assert (status.finished, status.total, status.running) == (8, 8, 0)
    assert figures(tmp_path) == undisturbed
    assert max(_epochs(tmp_path).values()) <= 2


def supervise(folder: Path, seconds: float) -> Any:
    """Run the grid with two worker processes."""
    _enqueue(folder, grid())
    target = WorkTarget("tests.queue.test_cells:open_toy_cells", {"folder": str(folder / "runs"), "seconds": seconds})
    options = QueueOptions(workers=2, poll_seconds=0.1)
    return run_workers(cells_work(), Workspace(folder), 8, target, options, on_progress=lambda _: None)


def open_toy_cells(session: Any, folder: str, seconds: float) -> Any:
    from audio_cls.queue.process import Worked

    return Worked(cells_work(), FakeObjective(Path(folder), seconds))


def test_a_longer_list_fills_its_holes(tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    _enqueue(tmp_path, grid(seeds=1))
    _run(tmp_path)
    before = _epochs(tmp_path)
    assert _enqueue(tmp_path, grid()) == Enqueued(8, added=4)
    assert _enqueue(tmp_path, grid()) == Enqueued(8)
    assert _run(tmp_path).ended == {"COMPLETE": 4}
    assert figures(tmp_path) == undisturbed
    assert _enqueue(tmp_path, grid(("a", "b", "longer"))) == Enqueued(12, added=4)
    assert _run(tmp_path).ended == {"COMPLETE": 4}
    assert figures(tmp_path).items() >= undisturbed.items(), "new arms leave the values of the others"
    assert _epochs(tmp_path).items() >= before.items()
    assert max(_epochs(tmp_path).values()) == 1
    assert study_status(_study(tmp_path)).total == 12


def test_an_interrupted_cell_goes_on_in_a_study_that_has_got_more_arms(tmp_path: Path) -> None:
    _enqueue(tmp_path, grid(seeds=1))
    stopped: list[str] = []

    def stop(context: TrialContext, epoch: int) -> None:
        if epoch == 2 and not stopped:
            stopped.append("once")
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        _run(tmp_path, FakeObjective(tmp_path / "runs", on_epoch=stop))
    study = _study(tmp_path)  # holds what it has seen so far
    Queue(study, open_storage(tmp_path / "optuna.db"), "x", drawn=False).tally()
    _enqueue(tmp_path, grid(("a", "b", "c"), seeds=1))
    assert _run(tmp_path).ended == {"COMPLETE": 6}
    assert max(_epochs(tmp_path).values()) == 1


def test_cells_are_taken_in_their_order_interrupted_ones_first(tmp_path: Path) -> None:
    _enqueue(tmp_path, grid())
    storage = open_storage(tmp_path / "optuna.db")
    queue = Queue(open_study(cells_work(), storage), storage, "here|boot|1|1", drawn=False)
    first, _ = queue.claim(1)
    second, _ = queue.claim(1)
    assert first is not None
    assert second is not None
    queue.interrupt(first, "SIGTERM")
    again, _ = queue.claim(1)
    assert again is not None
    assert again.user_attrs["config"] == 0
    assert (again.params, again.user_attrs["attempt"]) == (dict(grid()[0].params), 1)


def test_a_refused_cell_ends_alone_and_is_asked_for_again(tmp_path: Path) -> None:
    def refusing(context: TrialContext) -> Outcome:
        if context.params["arm"] == "b":
            raise UserError("no corpus 'esc01'")
        return Outcome("COMPLETE", 0.5, metrics={"macro_f1": 0.5}, last={"macro_f1": 0.4})

    _enqueue(tmp_path, grid(seeds=1))
    assert _run(tmp_path, refusing).ended == {"COMPLETE": 2, "FAILED": 2}
    states = {s.params["arm"]: s for s in read_cells(_study(tmp_path))}
    assert states["b"].state == "REFUSED"
    assert states["b"].record.reason == "refused: no corpus 'esc01'"
    assert dict(states["a"].record.metrics) == {"macro_f1": 0.5}
    assert dict(states["a"].record.last) == {"macro_f1": 0.4}
    assert "2 failed" in summary(study_status(_study(tmp_path)))[0]
    assert _enqueue(tmp_path, grid(seeds=1)) == Enqueued(4, again=2)
    assert _run(tmp_path).ended == {"COMPLETE": 2}


def test_a_cell_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    class Other(Component):
        layers: int = 2

    _enqueue(
        tmp_path, [Cell({"arm": "a", "seed": 0}, Other(), "k", "n"), Cell({"arm": "b", "seed": 0}, Toy(), "l", "m")]
    )
    assert _run(tmp_path).ended == {"FAILED": 1, "COMPLETE": 1}
    assert [s.state for s in read_cells(_study(tmp_path))] == ["REFUSED", "COMPLETE"]


def test_a_failed_cell_is_finished_and_run_again_only_when_asked_for(tmp_path: Path) -> None:
    def failing(context: TrialContext) -> Outcome:
        return Outcome("FAILED", None, "diverged: nan")

    cells = grid(seeds=1)
    _enqueue(tmp_path, cells)
    assert _run(tmp_path, failing).ended == {"FAILED": 4}, "four cells that fail alike do not stop a suite"
    assert _enqueue(tmp_path, cells) == Enqueued(4)
    assert _enqueue(tmp_path, cells, again=[cells[1].id]) == Enqueued(4, again=1)
    assert _run(tmp_path).ended == {"COMPLETE": 1}
    assert [s.state for s in read_cells(_study(tmp_path))] == ["FAILED", "COMPLETE", "FAILED", "FAILED"]
    assert _enqueue(tmp_path, cells, again=[cells[1].id]) == Enqueued(4, again=1)
    _run(tmp_path)
    assert {_epochs(tmp_path)[f"1 {epoch}"] for epoch in range(6)} == {2}, "from nothing, not from its checkpoint"


def test_only_some_cells_are_run(tmp_path: Path) -> None:
    _enqueue(tmp_path, grid())
    assert _run(tmp_path, only=[5, 2]).ended == {"COMPLETE": 2}
    done = [s.record.config for s in read_cells(_study(tmp_path)) if s.state == "COMPLETE"]
    assert done == [2, 5]


def test_a_result_of_another_suite_is_adopted_and_named(tmp_path: Path) -> None:
    _enqueue(tmp_path, grid(seeds=1))
    _run(tmp_path)
    storage = open_storage(tmp_path / "optuna.db")
    study = open_study(cells_work(name="ablation:second"), storage)
    cells = grid()
    found = finished_cells(storage, {c.key for c in cells}, besides="ablation:second")
    known = {c.id: found[c.key] for c in cells if c.key in found}
    assert enqueue(study, storage, cells, known=known) == Enqueued(8, added=4, adopted=4)
    states = read_cells(study)
    assert [s.state for s in states] == ["COMPLETE"] * 4 + ["WAITING"] * 4
    assert states[0].record.adopted_from == {"study": NAME, "trial": 0}
    assert states[0].value == read_cells(_study(tmp_path))[0].value
    failed = TrialRecord(outcome="failed", reason="oom: 3 GiB")
    more = [Cell({"arm": "a", "seed": 9, "fold": 1}, Toy(), "k", "n")]
    assert enqueue(study, storage, more, known={more[0].id: failed}).adopted == 1
    assert read_cells(study)[-1].state == "FAILED"


def test_nothing_that_others_enqueue_is_run(tmp_path: Path) -> None:
    _enqueue(tmp_path, grid(seeds=1))
    _study(tmp_path).enqueue_trial({"arm": "a", "seed": 7, "fold": 1})
    assert _run(tmp_path).ended == {"COMPLETE": 4}
    assert [t.state for t in _study(tmp_path).trials].count(TrialState.WAITING) == 1
