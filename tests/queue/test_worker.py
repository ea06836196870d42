"""Workers: the same seed gives the same study, killed or not; nothing twice, nothing lost, nothing left running."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from audio_cls.core.config import ConfigError
from audio_cls.core.errors import UserError
from audio_cls.queue.queue import Queue
from audio_cls.queue.seam import TrialContext
from audio_cls.queue.storage import Heartbeat, load_study, open_storage
from audio_cls.queue.worker import RepeatedFailure, WorkerReport, reason_kind
from audio_cls.runs.outcome import Outcome
from audio_cls.study import RandomSearch
from tests.study_fakes import EPOCHS, FakeObjective, Toy, declare, outcomes, space, work

FORK = multiprocessing.get_context("fork")
TOTAL = 10
STARTED: list[Any] = []


def _run(folder: Path, total: int = TOTAL, objective: Any = None, **settings: Any) -> WorkerReport:
    folder.mkdir(exist_ok=True)
    settings = {"poll_seconds": 0.05, **settings}
    return work(
        settings.pop("study", declare()), folder, total, objective or FakeObjective(folder / "runs"), **settings
    )


def _study(folder: Path) -> optuna.Study:
    return load_study("toy", open_storage(folder / "optuna.db", must_exist=True))


def _process(folder: Path, total: int = TOTAL, seconds: float = 0.0, **settings: Any) -> Any:
    """A worker in a process of its own, which a test may kill."""
    folder.mkdir(exist_ok=True)

    def run() -> None:
        _run(folder, total, FakeObjective(folder / "runs", seconds), max_deaths=99, **settings)

    process = FORK.Process(target=run)
    process.start()
    STARTED.append(process)
    return process


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    """Whatever a test that failed has left running or stopped is ended."""
    yield
    for process in STARTED:
        if process.is_alive():
            process.kill()
            process.join()
    STARTED.clear()


def _wait_for(what: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _lines(folder: Path) -> list[str]:
    log = folder / "runs" / "epochs.log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """The study that one worker gives when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert _run(folder).left == "total reached"
    found = outcomes(_study(folder))
    states = Counter(state for state, *_ in found.values())
    assert len(found) == TOTAL
    assert states["PRUNED"] >= 2, "a study without pruning would prove little"
    assert states["COMPLETE"] >= 4, "and so would one that TPE never steered"
    return found


def test_the_total_is_a_total(tmp_path: Path, undisturbed: dict[int, Any]) -> None:
    for total in (3, 3, TOTAL, 2):
        assert _run(tmp_path, total).left == "total reached"
    assert outcomes(_study(tmp_path)) == undisturbed
    assert len(_study(tmp_path).trials) == TOTAL


def test_pruned_trials_say_why(tmp_path: Path) -> None:
    _run(tmp_path)
    for trial in _study(tmp_path).trials:
        if trial.state == TrialState.PRUNED:
            assert trial.user_attrs["reason"].startswith(f"pruned: epoch {trial.last_step + 1}: ")
            assert " below the median " in trial.user_attrs["reason"]


def test_what_an_objective_is_told(tmp_path: Path) -> None:
    seen: list[TrialContext] = []

    def objective(context: TrialContext) -> Outcome:
        seen.append(context)
        assert isinstance(context.experiment, Toy)
        context.set_attr("note", "kept")
        return Outcome(
            "COMPLETE", context.experiment.x, attrs={"numpy": __import__("numpy").float64(0.5), "odd": {1, 2}}
        )

    _run(tmp_path, 2, objective)
    first = seen[0]
    assert (first.study, first.number, first.root, first.config_index, first.attempt, first.lineage) == (
        "toy",
        0,
        0,
        0,
        0,
        (),
    )
    assert (first.record.resumed_from, first.revived) == (None, False)
    assert first.overrides["x"] == first.params["x"] == first.experiment.x  # type: ignore[attr-defined]
    assert {"note": "kept", "numpy": 0.5, "odd": "{1, 2}", "outcome": "complete"}.items() <= _study(tmp_path).trials[
        0
    ].user_attrs.items()


# -- killed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_one_worker_killed_at_random_moments_gives_the_undisturbed_study(
    tmp_path: Path, undisturbed: dict[int, Any], seed: int
) -> None:
    moments = random.Random(seed)
    kills = 0
    for _ in range(10):
        done, more = len(_lines(tmp_path)), moments.randint(0, 3)
        process = _process(tmp_path, seconds=0.02)
        _wait_for(lambda enough=done + more, own=process: len(_lines(tmp_path)) >= enough or not own.is_alive())
        process.join(moments.uniform(0.0, 0.03))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    assert kills >= 5
    assert _run(tmp_path, max_deaths=99).left == "total reached"
    study = _study(tmp_path)
    assert outcomes(study) == undisturbed
    assert not [t for t in study.trials if not t.state.is_finished()]
    # An epoch is trained again only when its worker died between the training and its checkpoint's use: never a finished one.
    trained = Counter(tuple(line.split()[::2]) for line in _lines(tmp_path))
    assert sum(trained.values()) - len(trained) <= kills


STAGES = [
    "before any parameter",
    "between parameters",
    "before ready",
    "in an epoch",
    "before the report",
    "after the report",
    "before the tell",
    "after the attributes",
]


@pytest.mark.parametrize("stage", STAGES)
def test_a_death_at_any_stage_changes_nothing(
    tmp_path: Path, undisturbed: dict[int, Any], stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each configuration dies once at the stage, by an exception that no worker catches, as if the process had ended there."""
    died: set[int] = set()

    class Death(BaseException):
        pass

    def die(trial: Any) -> None:
        config = trial.user_attrs["config"]
        if config not in died and config in (0, 4, 5, 7):
            died.add(config)
            raise Death

    def fatal_space(trial: Any) -> dict[str, Any]:
        if stage == "before any parameter":
            die(trial)
        kind = trial.suggest_categorical("model.kind", ["narrow", "deep"])
        if stage == "between parameters":
            die(trial)
        changes = space(trial) | {"model.kind": kind}
        if stage == "before ready":
            die(trial)
        return changes

    report, tell = optuna.Trial.report, optuna.Study.tell

    def fatal_report(self: optuna.Trial, value: float, step: int) -> None:
        if step == 2 and stage == "before the report":
            die(self)
        report(self, value, step)
        if step == 2 and stage == "after the report":
            die(self)

    def fatal_tell(self: optuna.Study, trial: Any, *rest: Any, **more: Any) -> Any:
        if stage == "after the attributes":
            die(trial)
        return tell(self, trial, *rest, **more)

    def in_epoch(context: TrialContext, epoch: int) -> None:
        if epoch == 3 and stage == "in an epoch":
            die(Shown(context.config_index))

    class Shown:
        def __init__(self, config: int) -> None:
            self.user_attrs = {"config": config}

    class Objective(FakeObjective):
        def __call__(self, context: TrialContext) -> Outcome:
            outcome = super().__call__(context)
            if stage == "before the tell":
                die(Shown(context.config_index))
            return outcome

    monkeypatch.setattr(optuna.Trial, "report", fatal_report)
    monkeypatch.setattr(optuna.Study, "tell", fatal_tell)
    left = None
    for _ in range(6):
        with contextlib.suppress(Death):
            left = _run(
                tmp_path, objective=Objective(tmp_path / "runs", on_epoch=in_epoch), study=declare(space=fatal_space)
            )
            break
    assert left is not None
    assert left.left == "total reached"
    assert died
    assert outcomes(_study(tmp_path)) == undisturbed


def test_two_workers_killed_in_turn_reach_the_total_with_nothing_twice(tmp_path: Path) -> None:
    moments = random.Random(7)
    total = 12
    team = [_process(tmp_path, total, seconds=0.02) for _ in range(2)]
    for _ in range(6):
        time.sleep(moments.uniform(0.15, 0.35))
        victim = moments.randrange(2)
        if team[victim].is_alive():
            os.kill(team[victim].pid, signal.SIGKILL)
        team[victim].join()
        team[victim] = _process(tmp_path, total, seconds=0.02)
    for process in team:
        process.join(60)
    assert [p.exitcode for p in team] == [0, 0]
    study = _study(tmp_path)
    found = outcomes(study)
    assert sorted(found) == list(range(total))
    assert {state for state, *_ in found.values()} <= {"COMPLETE", "PRUNED"}
    assert all(t.state.is_finished() for t in study.trials)
    ended = Counter(t.user_attrs["config"] for t in study.trials if t.state != TrialState.FAIL)
    assert set(ended.values()) == {1}
    assert len({tuple(sorted(params.items())) for _, _, params, _ in found.values()}) == total
    for state, value, _, curve in found.values():
        assert sorted(curve) == list(range(len(curve)))
        assert state == "PRUNED" or (len(curve) == EPOCHS and curve[EPOCHS - 1] == value)


# -- asked to leave -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_asked_finishes_its_epoch_and_leaves_the_trial_to_be_taken_up(
    tmp_path: Path, undisturbed: dict[int, Any], number: signal.Signals
) -> None:
    process = _process(tmp_path, seconds=0.15)
    _wait_for(lambda: len(_lines(tmp_path)) >= 2)
    os.kill(process.pid, number)
    process.join(10)
    assert process.exitcode == 0
    states = [t.state for t in _study(tmp_path).trials]
    assert states == [TrialState.FAIL, TrialState.WAITING]
    waiting = _study(tmp_path).trials[1]
    assert waiting.user_attrs["resume_reason"] == number.name
    assert len(waiting.intermediate_values) == len(_lines(tmp_path)) < EPOCHS
    _run(tmp_path)
    assert outcomes(_study(tmp_path)) == undisturbed
    assert len(_lines(tmp_path)) == len({tuple(line.split()[::2]) for line in _lines(tmp_path)}), (
        "an epoch was trained twice"
    )


def test_a_worker_leaves_when_its_supervisor_dies(tmp_path: Path) -> None:
    def supervise() -> None:
        worker = _process(tmp_path, seconds=0.1, supervisor=os.getpid())
        (tmp_path / "pid").write_text(str(worker.pid))
        worker.join()

    supervisor = FORK.Process(target=supervise)
    supervisor.start()
    _wait_for(lambda: len(_lines(tmp_path)) >= 1)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.join()
    from audio_cls.queue.lease import _start

    _wait_for(lambda: _start(int((tmp_path / "pid").read_text())) == "gone")
    assert [t.state.name for t in _study(tmp_path).trials] == ["FAIL", "WAITING"]


def test_a_stopped_worker_loses_its_trial_and_neither_crashes_nor_writes_on(tmp_path: Path) -> None:
    beats = Heartbeat(1, 2)
    stalled = _process(tmp_path, 1, seconds=0.3, heartbeat=beats)
    _wait_for(lambda: len(_lines(tmp_path)) >= 1)
    time.sleep(0.12)  # past the report: stopped within a transaction, it would hold the whole database
    os.kill(stalled.pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert _run(tmp_path, 1, heartbeat=beats).left == "total reached"
    assert time.monotonic() - begun > 1.0, "a stopped worker was not given its grace"
    study = _study(tmp_path)
    before = [(t.state, t.value, t.intermediate_values) for t in study.trials]
    os.kill(stalled.pid, signal.SIGCONT)
    stalled.join(20)
    assert stalled.exitcode == 0
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]
    assert [(t.state, t.value, t.intermediate_values) for t in study.trials] == before
    own = [line for line in _lines(tmp_path) if int(line.split()[3]) == stalled.pid]
    assert len(own) <= 3, "it trained on after its trial was gone"
    assert study.trials[1].user_attrs["resume_reason"] == "its worker fell silent"


# -- failures are outcomes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_no_number_is_a_failure_and_never_told(tmp_path: Path, value: float | None) -> None:
    def objective(context: TrialContext) -> Outcome:
        return Outcome("COMPLETE", value if context.config_index == 0 else 0.5)

    _run(tmp_path, 2, objective)
    trials = _study(tmp_path).trials
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE"]
    assert trials[0].value is None
    assert reason_kind(trials[0].user_attrs["reason"]) == "diverged"


def test_an_exception_fails_the_trial_with_its_traceback_and_the_study_goes_on(tmp_path: Path) -> None:
    def objective(context: TrialContext) -> Outcome:
        if context.config_index == 1:
            raise ValueError("a width of 3: not even")
        if context.config_index == 2:
            raise MemoryError("12 GiB")
        if context.config_index == 3:
            raise ConfigError("model and features do not fit")
        return Outcome("COMPLETE", 0.5)

    report = _run(tmp_path, 5, objective)
    assert report.ended == {"COMPLETE": 2, "FAILED": 3}
    reasons = [t.user_attrs["reason"] for t in _study(tmp_path).trials]
    assert [reason_kind(r) for r in reasons] == ["", "error: ValueError", "oom", "error: ConfigError", ""]
    assert "in objective" in _study(tmp_path).trials[1].user_attrs["traceback"]
    _run(tmp_path, 5, objective)
    assert len(_study(tmp_path).trials) == 5, "a failure with a reason is not run again"


def test_a_study_whose_first_trials_all_fail_the_same_way_stops(tmp_path: Path) -> None:
    def objective(context: TrialContext) -> Outcome:
        raise RuntimeError(f"shape {context.number} is invalid")

    with pytest.raises(RepeatedFailure, match=r"first 5 trials.*error: RuntimeError: shape 4 is invalid"):
        _run(tmp_path, objective=objective)
    assert len(_study(tmp_path).trials) == 5
    assert _run(tmp_path).left == "total reached", "once mended, earlier failures do not stop it"


def test_different_failures_or_one_success_do_not_stop_a_study(tmp_path: Path) -> None:
    def objective(context: TrialContext) -> Outcome:
        return Outcome("FAILED", None, "oom: x" if context.config_index % 2 else "diverged: y")

    assert _run(tmp_path, 7, objective).ended == {"FAILED": 7}


def test_a_users_mistake_stops_the_study_and_costs_no_configuration(tmp_path: Path) -> None:
    def mistaken(trial: Any) -> dict[str, Any]:
        return {"x": trial.suggest_float("x", 0.0, 1.0), "model.widht": 3}

    with pytest.raises(ConfigError, match=r"model\.widht"):
        _run(tmp_path, study=declare(space=mistaken))
    assert [t.user_attrs["outcome"] for t in _study(tmp_path).trials] == ["abandoned"]

    def missing(context: TrialContext) -> Outcome:
        raise UserError("no corpus 'esc01'")

    other = tmp_path / "other"
    with pytest.raises(UserError, match="no corpus"):
        _run(other, objective=missing)
    assert [t.user_attrs["outcome"] for t in _study(other).trials] == ["abandoned"]
    _run(other, 2)
    assert sorted(outcomes(_study(other))) == [0, 1]


def test_a_parameter_value_keeps_its_failed_trial_out_of_the_sampler(tmp_path: Path) -> None:
    """Failures do not move later draws of a random search, and are not counted as values."""

    def objective(context: TrialContext) -> Outcome:
        return Outcome("FAILED", None, "oom: x") if context.config_index < 2 else Outcome("COMPLETE", 0.1)

    failing, sound = tmp_path / "failing", tmp_path / "sound"
    for folder, run in ((failing, objective), (sound, lambda context: Outcome("COMPLETE", 0.1))):
        _run(folder, 4, run, study=declare(sampler=RandomSearch(seed=1)))
    drawn = [[params for _, _, params, _ in outcomes(_study(f)).values()] for f in (failing, sound)]
    assert drawn[0] == drawn[1]


# -- revival ------------------------------------------------------------------------------------------------------


def test_a_revived_trial_equals_the_one_that_was_never_pruned(tmp_path: Path, undisturbed: dict[int, Any]) -> None:
    _run(tmp_path)
    study = _study(tmp_path)
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    queue = Queue(study, open_storage(tmp_path / "optuna.db"), "x")
    for trial in pruned:
        assert queue.requeue(trial.number, "revived", no_prune=True) is not None
    assert _run(tmp_path).left == "total reached"
    found = outcomes(_study(tmp_path))
    for trial in pruned:
        config = trial.user_attrs["config"]
        state, value, params, curve = found[config]
        experiment = declare().experiment(declare().overrides(optuna.trial.FixedTrial(params)))
        assert isinstance(experiment, Toy)
        expected = _curve(experiment)
        assert (state, value, list(curve.values())) == ("COMPLETE", expected[-1], expected)
        assert params == undisturbed[config][2]
    assert sorted(found) == list(range(TOTAL))


def _curve(experiment: Toy) -> list[float]:
    from tests.study_fakes import step

    curve: list[float] = []
    for epoch in range(experiment.epochs):
        curve.append(step(experiment, epoch, curve[-1] if curve else 0.0))
    return curve
