"""Databases, locks, studies created and taken up; samplers and pruners that depend on configurations, not on trial numbers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from audio_cls.core.errors import UserError
from audio_cls.queue.lease import is_dead, worker_identity
from audio_cls.queue.storage import LockBusy, load_study, open_storage, open_study, patiently
from audio_cls.study import TPE, Median, NoPruning, Percentile
from audio_cls.study.pruners import build_pruner
from audio_cls.study.samplers import StudyView, build_sampler
from tests.study_fakes import declare

FORK = multiprocessing.get_context("fork")


def _optuna(*words: str) -> str:
    """The `optuna` command's output."""
    done = subprocess.run([str(Path(sys.executable).with_name("optuna")), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_study_is_created_once_and_taken_up(tmp_path: Path) -> None:
    first = open_study(declare(), open_storage(tmp_path / "s.db"), extra={"data": "abc"})
    again = open_study(declare(), open_storage(f"sqlite:///{tmp_path / 's.db'}"), extra={"data": "abc"})
    assert first._study_id == again._study_id
    assert again.user_attrs["audio_cls"]["sampler"]["seed"] == 3
    assert sqlite3.connect(tmp_path / "s.db").execute("pragma journal_mode").fetchone() == ("wal",)
    with pytest.raises(UserError, match=r"data: another corpus.*digest abc -> xyz"):
        open_study(declare(), open_storage(tmp_path / "s.db"), extra={"data": "xyz"})


def test_a_changed_declaration_is_refused(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "s.db")
    open_study(declare(), storage)
    changed = declare(sampler=TPE(seed=9), pruner=NoPruning())
    with pytest.raises(UserError, match=r"sampler\.seed: 3 -> 9"):
        open_study(changed, storage)
    study: Any = open_study(declare(), storage)
    assert study.sampler.base._seed == 3
    assert type(study.pruner.base).__name__ == "MedianPruner"


def test_the_other_direction_is_refused(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "s.db")
    open_study(declare(), storage)
    with pytest.raises(UserError, match="direction maximize, the declaration asks for minimize"):
        open_study(declare(direction="minimize"), storage)


def test_a_study_of_the_optuna_command_is_taken_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    _optuna("create-study", "--storage", url, "--study-name", "toy", "--direction", "maximize")
    study = open_study(declare(), open_storage(url))
    assert study.user_attrs["audio_cls"]["metric"] == "val/macro_f1"
    assert len(optuna.get_all_study_names(url)) == 1


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("mysql://root@localhost/x", "'mysql' is no supported database"),
        ("sqlite://", "needs a file"),
        ("{tmp}/no/such/folder/s.db", "no folder"),
        ("{tmp}/text.db", "no usable study database"),
        ("://", "no database URL"),
    ],
)
def test_a_storage_that_cannot_be_is_a_users_error(tmp_path: Path, where: str, expected: str) -> None:
    (tmp_path / "text.db").write_text("this is no database, however long it is. " * 99)
    with pytest.raises(UserError, match=expected):
        open_storage(where.replace("{tmp}", str(tmp_path)))


def test_a_missing_study_or_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was searched"):
        open_storage(tmp_path / "s.db", must_exist=True)
    storage = open_storage(tmp_path / "s.db")
    open_study(declare(name="esc10"), storage)
    with pytest.raises(UserError, match=r"no study 'esc1O'.*Did you mean 'esc10'"):
        load_study("esc1O", storage)


def test_a_password_is_never_shown() -> None:
    with pytest.raises(UserError) as caught:
        open_storage("postgresql://somebody:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)
    assert "cannot be reached" in str(caught.value) or "driver is missing" in str(caught.value)


def _create(path: Path, go: Any) -> None:
    go.wait()
    open_study(declare(), open_storage(path))


def test_many_processes_open_a_fresh_database_together(tmp_path: Path) -> None:
    go = FORK.Event()
    processes = [FORK.Process(target=_create, args=(tmp_path / "s.db", go)) for _ in range(8)]
    for process in processes:
        process.start()
    go.set()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0] * 8
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path / 's.db'}") == ["toy"]


def _pop(path: Path, go: Any, popped: Any) -> None:
    study = open_study(declare(), open_storage(path))
    go.wait()
    while any(t.state == TrialState.WAITING for t in study.get_trials(deepcopy=False)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            number = study.ask().number
        popped.put(number)


def test_no_queued_trial_is_popped_twice(tmp_path: Path) -> None:
    study = open_study(declare(), open_storage(tmp_path / "s.db"))
    for _ in range(30):
        study.add_trial(create_trial(state=TrialState.WAITING))
    go, popped = FORK.Event(), FORK.Queue()
    processes = [FORK.Process(target=_pop, args=(tmp_path / "s.db", go, popped)) for _ in range(4)]
    for process in processes:
        process.start()
    go.set()
    numbers = []
    while any(p.is_alive() for p in processes) or not popped.empty():
        while not popped.empty():
            numbers.append(popped.get())
        time.sleep(0.02)
    assert [p.exitcode for p in processes] == [0] * 4
    # A process that finds the queue empty after looking asks for a fresh trial: those numbers are new, and also no one's twice.
    assert sorted(numbers) == list(range(len(numbers)))
    assert len(numbers) >= 30


def _hold(path: Path, held: Any) -> None:
    with open_storage(path).lock("toy"):
        held.set()
        time.sleep(60)


def test_a_lock_says_who_holds_it_and_goes_with_its_holder(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "s.db")
    held = FORK.Event()
    holder = FORK.Process(target=_hold, args=(tmp_path / "s.db", held))
    holder.start()
    assert held.wait(20)
    with pytest.raises(LockBusy, match=f"process {holder.pid} on"), storage.lock("toy", timeout=0.1):
        pass
    holder.kill()
    holder.join()
    with storage.lock("toy", timeout=5.0):
        pass


def test_a_database_that_comes_back_is_waited_for_and_one_that_does_not_is_not() -> None:
    from optuna.exceptions import StorageInternalError

    tries = []

    def call() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise StorageInternalError("locked")
        return 7

    assert patiently(call) == 7
    with pytest.raises(StorageInternalError):
        patiently(lambda: (_ for _ in ()).throw(StorageInternalError("gone")), seconds=0.3)


# -- who lives ----------------------------------------------------------------------------------------------------


def test_a_process_is_known_to_be_dead_only_where_that_can_be_known() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    host, boot, pid, start = worker_identity().split("|")
    from audio_cls.queue.lease import _start

    theirs = f"{host}|{boot}|{child.pid}|{_start(child.pid)}"
    assert is_dead(worker_identity()) is False
    assert is_dead(theirs) is False
    os.kill(child.pid, signal.SIGSTOP)
    assert is_dead(theirs) is False  # stopped is not dead: the heartbeat decides
    child.kill()
    while _start(child.pid) != "gone":
        time.sleep(0.01)
    assert is_dead(theirs) is True  # a defunct process whose parent has not looked
    child.wait()
    assert is_dead(theirs) is True
    assert is_dead(f"{host}|{boot}|{pid}|{int(start) - 1}") is True  # the id was used again
    assert is_dead(f"{host}|another-boot|{pid}|{start}") is True
    assert is_dead(f"elsewhere|{boot}|{pid}|{start}") is None
    assert is_dead("written by somebody else") is None


# -- samplers and pruners -----------------------------------------------------------------------------------------

SPACE = {"x": FloatDistribution(0, 1)}


def _finished(
    study: optuna.Study, x: float, value: float, state: TrialState = TrialState.COMPLETE, **attrs: Any
) -> None:
    curve = {0: value / 2, 1: value}
    study.add_trial(
        create_trial(
            state=state, params={"x": x}, distributions=SPACE, value=value, user_attrs=attrs, intermediate_values=curve
        )
    )


def _suggest(study: optuna.Study, config: int) -> float:
    study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={"config": config}))
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    study.tell(trial, state=TrialState.FAIL)
    return x


def test_draws_depend_on_the_configuration_not_on_the_trial_number() -> None:
    def study_of(noise: int) -> optuna.Study:
        study = optuna.create_study(direction="maximize", sampler=build_sampler(TPE(seed=5, startup_trials=3)))
        for i in range(6):
            for _ in range(noise):
                study.tell(study.ask(), state=TrialState.FAIL)  # interrupted attempts shift the numbers
            _finished(study, i / 6, 1 - abs(i / 6 - 0.4))
        return study

    quiet, noisy = study_of(0), study_of(2)
    assert [_suggest(quiet, k) for k in range(6, 10)] == [_suggest(noisy, k) for k in range(6, 10)]
    assert _suggest(quiet, 6) != _suggest(quiet, 7)


def test_the_sampler_sees_a_configuration_once_in_the_order_of_first_attempts() -> None:
    study = optuna.create_study(direction="maximize")
    _finished(study, 0.1, 0.1)  # 0
    _finished(study, 0.9, 0.2, TrialState.PRUNED)  # 1, revived as 4
    _finished(study, 0.5, 0.3)  # 2
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=9.0))  # 3: no parameters
    _finished(study, 0.9, 0.8, resumed_from=1, root_trial=1)  # 4
    view = StudyView(study)
    assert [t.number for t in view.get_trials(deepcopy=False)] == [0, 4, 2]
    assert [t.number for t in view._get_trials(states=(TrialState.PRUNED,), use_cache=True)] == []
    assert [t.number for t in StudyView(study, empty=True).trials] == [0, 4, 2, 3]


def test_a_revival_that_failed_leaves_the_pruned_original_in_view() -> None:
    study = optuna.create_study(direction="maximize")
    _finished(study, 0.9, 0.2, TrialState.PRUNED)
    study.add_trial(
        create_trial(
            state=TrialState.FAIL,
            params={"x": 0.9},
            distributions=SPACE,
            user_attrs={"root_trial": 0, "resumed_from": 0},
        )
    )
    assert [t.number for t in StudyView(study).get_trials(states=(TrialState.PRUNED, TrialState.COMPLETE))] == [0]


def test_tpe_is_drawn_to_revived_winners_that_their_pruned_twins_would_spoil() -> None:
    def near(linked: bool) -> int:
        hits = 0
        for seed in range(20):
            study = optuna.create_study(direction="maximize", sampler=build_sampler(TPE(seed=seed)))
            for i, x in enumerate(np.random.default_rng(0).uniform(0, 0.7, size=30).tolist()):
                _finished(
                    study, x, 0.1 if i % 2 else -abs(x - 0.3), TrialState.PRUNED if i % 2 else TrialState.COMPLETE
                )
            for i in range(3):
                _finished(study, 0.85 + i / 20, 0.1, TrialState.PRUNED)
            for i in range(3):
                _finished(
                    study, 0.85 + i / 20, 1.0, **({"root_trial": 30 + i, "resumed_from": 30 + i} if linked else {})
                )
            hits += abs(_suggest(study, 36) - 0.9) < 0.1
        return hits

    assert near(linked=True) > near(linked=False) + 4


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_the_median_pruner_says_why(direction: str, sign: int) -> None:
    study = optuna.create_study(direction=direction, pruner=build_pruner(Median(startup_trials=3, warmup_epochs=1)))
    for value in (0.4, 0.55, 0.7):
        _finished(study, 0.5, sign * value)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(sign * 0.1, 0)
    assert not trial.should_prune()  # warm-up
    trial.report(sign * 0.41, 1)
    assert trial.should_prune()
    frozen = study.trials[trial.number]
    pruner: Any = study.pruner
    assert (
        pruner.explain(study, frozen)
        == f"epoch 2: {sign * 0.41:g} {'below' if sign > 0 else 'above'} the median {sign * 0.55:g} of 3 trials"
    )
    trial.set_user_attr("no_prune", True)
    assert not trial.should_prune()


def test_the_percentile_that_is_explained_is_the_one_that_pruned() -> None:
    study = optuna.create_study(
        direction="maximize", pruner=build_pruner(Percentile(percentile=25.0, startup_trials=1))
    )
    for value in (0.1, 0.2, 0.3, 0.4, 0.5):
        _finished(study, 0.5, value)
    trial = study.ask()
    trial.report(0.39, 1)
    assert trial.should_prune()
    pruner: Any = study.pruner
    assert "0.39 below the best 25 %, which begin at 0.4 of 5 trials" in pruner.explain(
        study, study.trials[trial.number]
    )


# -- where a database and its lock may lie ------------------------------------------------------------------------


def _entries(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", ["text", "other tables", "short", "folder"])
@pytest.mark.parametrize("must_exist", [False, True])
def test_nothing_is_written_beside_a_file_that_is_no_study_database(
    tmp_path: Path, kind: str, must_exist: bool
) -> None:
    """A `passwd.lock` beside the system's passwd stops every command that adds a user."""
    path = tmp_path / "passwd"
    if kind == "text":
        path.write_text("root:x:0:0:root:/root:/bin/bash\n" * 20)
    elif kind == "short":
        path.write_text("x")
    elif kind == "folder":
        path.mkdir()
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("create table bookmarks (url)")
    before = _entries(tmp_path)
    with pytest.raises(UserError, match=r"no usable study database|is no file"):
        open_storage(path, must_exist=must_exist)
    assert _entries(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["passwd"]


def test_an_empty_file_becomes_a_database_and_its_lock_lies_apart(tmp_path: Path) -> None:
    (tmp_path / "s.db").touch()
    open_study(declare(), open_storage(tmp_path / "s.db"))
    assert (tmp_path / ".locks" / "s.db.lock").is_file()
    assert not (tmp_path / "s.db.lock").exists()


def test_a_link_to_a_database_shares_its_lock(tmp_path: Path) -> None:
    """Two workspaces with one database exclude each other, however they name it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.db").symlink_to(tmp_path / "s.db")
    first, second = open_storage(tmp_path / "s.db"), open_storage(tmp_path / "elsewhere" / "mine.db")
    with first.lock("toy"), pytest.raises(LockBusy), second.lock("toy", timeout=0.1):
        pass


def test_opening_a_database_again_keeps_the_locks_of_the_first_opening(tmp_path: Path) -> None:
    """A process loses its locks on a file when it closes it; another one then takes the write-ahead log away under it."""
    path = tmp_path / "s.db"
    first = open_storage(path)
    open_study(declare(), first)
    with first.backend.engine.connect() as connection:
        connection.exec_driver_sql("select * from studies").fetchall()
        connection.rollback()
        open_storage(path)
        code = f"import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('select * from studies').fetchall(); c.close()"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert path.with_name("s.db-wal").exists()
