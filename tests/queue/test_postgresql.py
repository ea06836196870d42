"""The same studies on a real PostgreSQL server, started here; skipped where there is none."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from audio_cls.queue.cells import read_cells
from audio_cls.queue.storage import Heartbeat, LockBusy, load_study, open_storage, open_study
from tests.queue.test_cells import cells_work, grid
from tests.servers import PostgreSQL
from tests.study_fakes import FakeObjective, declare, outcomes, work

pytestmark = pytest.mark.slow
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def url(postgresql_server: PostgreSQL, request: pytest.FixtureRequest) -> str:
    """A fresh database."""
    return postgresql_server.create(f"t{zlib.crc32(request.node.name.encode())}")


def _process(work: Any, *args: Any) -> Any:
    process = FORK.Process(target=work, args=args)
    process.start()
    return process


def _work(url: str, folder: Path, total: int, seconds: float) -> None:
    work(
        declare(), folder, total, FakeObjective(folder / "runs", seconds), storage=url, poll_seconds=0.05, max_deaths=99
    )


def _open(url: str) -> None:
    open_study(declare(), open_storage(url))


def test_many_processes_open_a_fresh_database_together(url: str) -> None:
    team = [_process(_open, url) for _ in range(6)]
    for process in team:
        process.join(60)
    assert [p.exitcode for p in team] == [0] * 6


def test_one_worker_killed_now_and_then_gives_the_study_that_sqlite_gives_undisturbed(url: str, tmp_path: Path) -> None:
    work(declare(), tmp_path, 8, FakeObjective(tmp_path / "plain"))
    for _ in range(5):
        process = _process(_work, url, tmp_path, 8, 0.02)
        process.join(0.7)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    _work(url, tmp_path, 8, 0.0)
    study = load_study("toy", open_storage(url))
    assert outcomes(study) == outcomes(load_study("toy", open_storage(tmp_path / "optuna.db")))
    assert all(t.state.is_finished() for t in study.trials)


def test_several_workers_run_nothing_twice(url: str, tmp_path: Path) -> None:
    team = [_process(_work, url, tmp_path, 16, 0.01) for _ in range(4)]
    time.sleep(1.2)
    os.kill(team[0].pid, signal.SIGKILL)
    for process in team:
        process.join(90)
    assert [p.exitcode for p in team[1:]] == [0] * 3
    study = load_study("toy", open_storage(url))
    assert sorted(outcomes(study)) == list(range(16))
    assert all(t.state.is_finished() for t in study.trials)
    assert set(Counter(t.user_attrs["config"] for t in study.trials if t.state.name != "FAIL").values()) == {1}
    trained = Counter(tuple(line.split()[::2]) for line in (tmp_path / "runs/epochs.log").read_text().splitlines())
    assert sum(trained.values()) - len(trained) <= 1


def _hold(url: str, held: Any) -> None:
    with open_storage(url).lock("toy"):
        held.set()
        time.sleep(60)


def test_a_lock_goes_with_its_holder(url: str) -> None:
    storage = open_storage(url, heartbeat=Heartbeat(1, 4))
    held = FORK.Event()
    holder = _process(_hold, url, held)
    assert held.wait(30)
    with pytest.raises(LockBusy), storage.lock("toy", timeout=0.2):
        pass
    with storage.lock("another study", timeout=0.2):
        pass
    holder.kill()
    holder.join()
    with storage.lock("toy", timeout=10.0):
        pass


def _drain(url: str, folder: Path, seconds: float) -> None:
    """Claim whatever waits, note it, finish it."""
    import optuna

    storage = open_storage(url)
    study = load_study("toy", storage)
    from audio_cls.queue.lease import worker_identity
    from audio_cls.queue.queue import Queue

    queue = Queue(study, storage, worker_identity())
    while True:
        trial, _ = queue.claim(60)
        if trial is None:
            return
        with open(folder / "claimed.log", "a", encoding="utf-8") as log:
            log.write(f"{trial.number} {trial.user_attrs['config']}\n")
        time.sleep(seconds)
        study.tell(trial, 0.5, state=optuna.trial.TrialState.COMPLETE)
        queue.release(trial)


def test_many_workers_drain_one_queue_and_take_no_trial_twice(url: str, tmp_path: Path) -> None:
    study = open_study(declare(), open_storage(url))
    for k in range(40):
        study.enqueue_trial({"x": (k + 0.5) / 40, "model.kind": "narrow", "model.width": 1})
    team = [_process(_drain, url, tmp_path, 0.005) for _ in range(8)]
    for process in team:
        process.join(120)
    assert [p.exitcode for p in team] == [0] * 8
    claimed = [line.split() for line in (tmp_path / "claimed.log").read_text().splitlines()]
    assert len({number for number, _ in claimed}) == len(claimed) == 60
    assert sorted(int(config) for _, config in claimed) == list(range(60))


def test_a_worker_that_falls_silent_loses_its_trial_and_notices(url: str, tmp_path: Path) -> None:
    """Stopped for longer than the grace, as on another machine: found by its heartbeat, not by its process id."""
    import dataclasses

    from audio_cls.queue.lease import Lease
    from audio_cls.queue.queue import Queue

    storage = open_storage(url, heartbeat=Heartbeat(1, 2))
    study = open_study(declare(), storage)
    elsewhere = Queue(study, storage, "another-host|boot|1|1")
    trial, _ = elsewhere.claim(1)
    assert trial is not None
    declare().overrides(trial)
    trial.set_user_attr("ready", True)
    lease = Lease(study, storage, trial._trial_id)
    storage.backend.record_heartbeat(trial._trial_id)
    here = Queue(load_study("toy", storage), dataclasses.replace(storage), "here|boot|2|2")
    assert here.claim(1)[0] is None
    time.sleep(3.5)
    again, _ = here.claim(1)
    assert again is not None
    assert again.user_attrs["resumed_from"] == trial.number
    assert not lease.check()
    assert not elsewhere.interrupt(trial, "too late")


def _enqueue(url: str, folder: Path, arms: tuple[str, ...]) -> None:
    from audio_cls.queue.cells import enqueue

    storage = open_storage(url)
    enqueue(open_study(cells_work(), storage), storage, grid(arms))


def _work_cells(url: str, folder: Path, seconds: float) -> None:
    objective = FakeObjective(folder / "runs", seconds)
    work(cells_work(), folder, 1, objective, storage=url, poll_seconds=0.05, max_deaths=99)


def test_two_boxes_share_a_list_of_cells_that_grows(url: str, tmp_path: Path) -> None:
    """Two workspaces, one database: no cell is run twice, though one worker is killed and the list gets another arm."""
    boxes = [tmp_path / "one", tmp_path / "two"]
    shared = tmp_path / "runs"  # checkpoints lie on a share
    shared.mkdir()
    for box in boxes:
        box.mkdir()
        (box / "runs").symlink_to(shared)
    team = [_process(_enqueue, url, box, ("a", "b")) for box in boxes]
    for process in team:
        process.join(60)
    team = [_process(_work_cells, url, box, 0.02) for box in boxes]
    while not (shared / "epochs.log").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(team[0].pid, signal.SIGKILL)
    _enqueue(url, tmp_path, ("a", "b", "c"))
    team.append(_process(_work_cells, url, boxes[0], 0.0))
    for process in team:
        process.join(60)
    study = load_study("ablation:toy", open_storage(url))
    assert [s.state for s in read_cells(study)] == ["COMPLETE"] * 12
    lines = (shared / "epochs.log").read_text().splitlines()
    trained = Counter(" ".join(line.split()[:3:2]) for line in lines)
    assert max(trained.values()) <= 2, "at most the epoch of the killed worker is trained twice"
    assert sum(trained.values()) <= 12 * 6 + 1
