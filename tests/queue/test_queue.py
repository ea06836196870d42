"""The queue's decisions, one at a time: indices, totals, dead workers, crash windows, trials of others."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from audio_cls.queue.lease import worker_identity
from audio_cls.queue.queue import Queue, Tally
from audio_cls.queue.storage import Heartbeat, StudyStorage, open_storage, open_study
from tests.study_fakes import FakeObjective, declare, outcomes, work

DEAD = "|".join([*worker_identity().split("|")[:2], "999999999", "1"])  # a process of this machine that is no more
ELSEWHERE = "another-machine|boot|1|1"


class Bench:
    """A study on a file, and hands in its queue."""

    def __init__(self, folder: Path, grace: int = 4) -> None:
        self.storage: StudyStorage = open_storage(folder / "s.db", heartbeat=Heartbeat(1, grace))
        self.declaration = declare()
        self.study: optuna.Study = open_study(self.declaration, self.storage)

    def queue(self, worker: str = "", **settings: Any) -> Queue:
        return Queue(self.study, self.storage, worker or worker_identity(), **settings)

    def begin(self, queue: Queue, total: int = 9, epochs: int = 0) -> optuna.Trial:
        """Claim a trial, draw its parameters, report some epochs."""
        trial, _ = queue.claim(total)
        assert trial is not None
        self.declaration.overrides(trial)
        trial.set_user_attr("ready", True)
        for epoch in range(epochs):
            trial.report(0.1 * epoch, epoch)
        return trial

    def states(self) -> list[str]:
        return [t.state.name for t in self.study.get_trials(deepcopy=False)]

    def attrs(self, number: int) -> dict[str, Any]:
        return self.study.get_trials(deepcopy=False)[number].user_attrs


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_indices_are_given_in_order_and_not_beyond_the_total(bench: Bench) -> None:
    queue = bench.queue()
    claimed = [bench.begin(queue, total=3) for _ in range(3)]
    assert [t.user_attrs["config"] for t in claimed] == [0, 1, 2]
    trial, tally = queue.claim(3)
    assert trial is None
    assert (len(tally.finished), len(tally.live)) == (0, 3)
    bench.study.tell(claimed[0], 0.5)
    assert queue.claim(3)[0] is None
    assert queue.claim(4)[0].user_attrs["config"] == 3  # type: ignore[union-attr]


def test_a_dead_workers_trial_is_taken_up_with_its_parameters_curve_and_attributes(bench: Bench) -> None:
    trial = bench.begin(bench.queue(DEAD), epochs=2)
    trial.set_user_attr("run", "run-0")
    again, _ = bench.queue().claim(9)
    assert again is not None
    assert bench.states() == ["FAIL", "RUNNING"]
    assert (again.number, again.params) == (1, trial.params)
    assert bench.study.get_trials()[1].intermediate_values == {0: 0.0, 1: 0.1}
    expected = {
        "config": 0,
        "run": "run-0",
        "resumed_from": 0,
        "root_trial": 0,
        "attempt": 1,
        "ready": True,
        "resume_reason": "its worker died",
    }
    assert expected.items() <= again.user_attrs.items()
    assert again.user_attrs["worker"] == worker_identity()
    assert bench.attrs(0)["outcome"] == "interrupted"


def test_resumed_trials_come_before_fresh_ones_and_own_their_index(bench: Bench) -> None:
    first = bench.begin(bench.queue(DEAD))
    queue = bench.queue()
    assert [bench.begin(queue).user_attrs["config"] for _ in range(2)] == [first.user_attrs["config"], 1]


def test_a_trial_that_died_before_its_parameters_were_drawn_frees_its_index(bench: Bench) -> None:
    trial, _ = bench.queue(DEAD).claim(9)
    assert trial is not None
    trial.suggest_float("x", 0.0, 1.0)
    again, tally = bench.queue().claim(9)
    assert again is not None
    assert (again.number, again.user_attrs["config"], len(tally.live)) == (1, 0, 1)
    assert bench.states() == ["FAIL", "RUNNING"]
    assert bench.attrs(0)["outcome"] == "abandoned"
    assert again.suggest_float("x", 0.0, 1.0) == trial.params["x"]


def test_a_live_workers_trial_is_left_alone_until_it_falls_silent(bench: Bench) -> None:
    import subprocess
    import sys

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    from audio_cls.queue.lease import _start

    theirs = "|".join([*worker_identity().split("|")[:2], str(child.pid), _start(child.pid)])
    trial = bench.begin(bench.queue(theirs))
    bench.storage.backend.record_heartbeat(trial._trial_id)
    assert bench.queue().tidy().live[0].number == 0
    _age_beats(bench, 60)
    assert bench.queue().tidy().live[0].number == 1
    assert bench.states() == ["FAIL", "WAITING"]
    child.kill()
    child.wait()


def test_a_worker_elsewhere_is_judged_by_its_beats_alone(bench: Bench) -> None:
    trial = bench.begin(bench.queue(ELSEWHERE))
    assert bench.queue().tidy().live[0].number == 0  # no beat yet, but young
    _age_start(bench, trial, 60)
    bench.storage.backend.record_heartbeat(trial._trial_id)
    assert bench.queue().tidy().live[0].number == 0
    _age_beats(bench, 60)
    assert bench.queue().tidy().live[0].number == 1


def test_a_worker_elsewhere_that_died_before_its_first_beat_is_noticed(bench: Bench) -> None:
    trial = bench.begin(bench.queue(ELSEWHERE))
    _age_start(bench, trial, 60)
    assert bench.queue().tidy().live[0].number == 1


def test_tidying_twice_or_by_many_gives_one_successor(bench: Bench) -> None:
    bench.begin(bench.queue(DEAD), epochs=1)
    for queue in (bench.queue(), bench.queue("x"), bench.queue()):
        queue.tidy()
    assert bench.states() == ["FAIL", "WAITING"]


def test_a_crash_between_the_failure_and_its_copy_is_healed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.begin(bench.queue(DEAD), epochs=1)
    with monkeypatch.context() as patched:
        patched.setattr(Queue, "_copy", _die)
        with pytest.raises(Death):
            bench.queue().tidy()
    assert bench.states() == ["FAIL"]
    again, _ = bench.queue().claim(9)
    assert again is not None
    assert again.user_attrs["resumed_from"] == 0
    assert bench.states() == ["FAIL", "RUNNING"]


def test_a_crash_between_the_reason_and_the_failure_is_healed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.begin(bench.queue(DEAD), epochs=1)
    with monkeypatch.context() as patched:
        patched.setattr(type(bench.study._storage), "set_trial_state_values", _die)
        with pytest.raises(Death):
            bench.queue().tidy()
    assert bench.states() == ["RUNNING"]
    bench.queue().tidy()
    assert bench.states() == ["FAIL", "WAITING"]


def test_a_claim_that_dies_between_queueing_and_taking_is_taken_by_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(bench.study, "ask", _die)
        with pytest.raises(Death):
            bench.queue(DEAD).claim(9)
    assert bench.states() == ["WAITING"]
    trial, _ = bench.queue().claim(9)
    assert trial is not None
    assert (trial.number, trial.user_attrs["config"], trial.user_attrs["worker"]) == (0, 0, worker_identity())


@pytest.mark.parametrize("by", ["tell", "heartbeat callback"])
def test_a_trial_failed_from_outside_goes_on(bench: Bench, by: str) -> None:
    trial = bench.begin(bench.queue(ELSEWHERE), epochs=1)
    if by == "tell":
        optuna.load_study(study_name="toy", storage=bench.storage.backend.url).tell(trial.number, state=TrialState.FAIL)
    else:
        bench.storage.backend.record_heartbeat(trial._trial_id)
        _age_beats(bench, 60)
        optuna.storages.fail_stale_trials(bench.study)
    assert bench.states() == ["FAIL"]
    assert bench.queue().tidy().live[0].user_attrs["resumed_from"] == 0


def test_a_configuration_that_kills_its_workers_fails_in_the_end(bench: Bench) -> None:
    for _ in range(3):
        bench.begin(bench.queue(DEAD, max_deaths=3))
    tally = bench.queue(max_deaths=3).tidy()
    assert [t.user_attrs["outcome"] for t in tally.finished] == ["failed"]
    assert "3 times in a row without finishing an epoch" in tally.finished[0].user_attrs["reason"]


def test_deaths_with_progress_between_them_do_not_add_up(bench: Bench) -> None:
    for epoch in range(5):
        trial = bench.begin(bench.queue(DEAD, max_deaths=2))
        if epoch % 2:
            trial.report(0.1, epoch)
    tally = bench.queue(max_deaths=2).tidy()
    assert tally.finished == []
    assert tally.live[0].user_attrs["attempt"] == 5


def test_a_failure_with_a_reason_is_not_run_again(bench: Bench) -> None:
    trial = bench.begin(bench.queue())
    trial.set_user_attr("outcome", "failed")
    trial.set_user_attr("reason", "oom: too wide")
    bench.study.tell(trial, state=TrialState.FAIL)
    tally = bench.queue().tidy()
    assert bench.states() == ["FAIL"]
    assert (len(tally.finished), tally.next_index) == (1, 1)


def test_a_pruned_trial_is_revived_once_and_counts_once(bench: Bench) -> None:
    queue = bench.queue()
    trial = bench.begin(queue, epochs=2)
    bench.study.tell(trial, state=TrialState.PRUNED)
    assert queue.requeue(0, "revived", no_prune=True) == 1
    assert queue.requeue(0, "revived", no_prune=True) is None
    tally = queue.tally()
    assert (len(tally.finished), len(tally.live)) == (0, 1)
    again, _ = queue.claim(1)
    assert again is not None
    assert {
        "no_prune": True,
        "revived": True,
        "resume_reason": "revived",
        "config": 0,
    }.items() <= again.user_attrs.items()
    assert not again.should_prune()


def test_a_running_trial_of_the_optuna_command_is_left_until_it_is_old(bench: Bench) -> None:
    trial = optuna.load_study(study_name="toy", storage=bench.storage.backend.url).ask()
    bench.study.tell(bench.begin(bench.queue()), 0.5)
    assert bench.attrs(1)["config"] == 0  # the other's trial does not count
    assert bench.queue().tidy().others[0].number == 0
    _age_start(bench, trial, 3 * 3600)
    assert bench.queue(foreign_hours=4.0).tidy().others[0].state == TrialState.RUNNING
    assert bench.queue(foreign_hours=2.0).tidy().others[0].state == TrialState.FAIL
    assert bench.states() == ["FAIL", "COMPLETE"]


def test_a_trial_that_a_user_enqueued_is_run_and_gets_an_index(bench: Bench) -> None:
    bench.study.enqueue_trial({"x": 0.25})
    trial = bench.begin(bench.queue(DEAD))
    assert (trial.params["x"], trial.user_attrs["config"]) == (0.25, 0)
    bench.study.enqueue_trial({"x": 7.0})  # outside the space: Optuna warns and uses it
    with pytest.warns(UserWarning, match="out of range"):
        odd, again = bench.begin(bench.queue(ELSEWHERE)), bench.begin(bench.queue())
    assert (odd.params["x"], again.params["x"]) == (7.0, 0.25)
    optuna.load_study(study_name="toy", storage=bench.storage.backend.url).tell(odd.number, state=TrialState.FAIL)
    with pytest.warns(UserWarning, match="out of range"):
        again = bench.begin(bench.queue())
    assert (again.params["x"], again.user_attrs["config"]) == (7.0, 1)


def test_a_lowered_total_takes_back_what_nobody_began(bench: Bench) -> None:
    bench.study.tell(bench.begin(bench.queue()), 0.5)
    bench.study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={"config": 1}))
    trial, tally = bench.queue().claim(1)
    assert trial is None
    assert (len(tally.finished), len(tally.live), tally.next_index) == (1, 0, 1)


def test_outcomes_of_several_workers_that_race_are_one_each(bench: Bench) -> None:
    queues = [bench.queue(f"another-machine|boot|{i}|1") for i in range(3)]
    claimed = [bench.begin(queues[i % 3], total=7).user_attrs["config"] for i in range(7)]
    assert claimed == list(range(7))


def test_the_index_decides_what_a_configuration_is(tmp_path: Path) -> None:
    """Interrupted and abandoned attempts shift trial numbers; the k-th configuration stays what it was."""
    plain, shifted = Bench(_folder(tmp_path, "plain")), Bench(_folder(tmp_path, "shifted"))
    work(plain.declaration, tmp_path, 6, FakeObjective(tmp_path / "plain"), storage=tmp_path / "plain/s.db")
    for total in range(1, 7):
        shifted.queue(DEAD).claim(total)  # dies before its parameters are drawn
        shifted.begin(shifted.queue(DEAD), total)  # dies before its first epoch
        work(
            shifted.declaration, tmp_path, total, FakeObjective(tmp_path / "shifted"), storage=tmp_path / "shifted/s.db"
        )
    assert outcomes(plain.study) == outcomes(shifted.study)
    assert len(shifted.states()) == 18
    assert len(Tally.of(plain.study.get_trials()).finished) == 6


class Death(BaseException):
    """Stands for the end of the process: nobody catches it."""


def _die(*_: Any, **__: Any) -> Any:
    raise Death


def _folder(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def _age_start(bench: Bench, trial: optuna.Trial, seconds: float) -> None:
    _write(
        bench, "update trials set datetime_start = ? where trial_id = ?", (_ago(seconds, utc=False), trial._trial_id)
    )


def _age_beats(bench: Bench, seconds: float) -> None:
    _write(bench, "update trial_heartbeats set heartbeat = ?", (_ago(seconds, utc=True),))


def _ago(seconds: float, utc: bool) -> str:
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) if utc else datetime.datetime.now()
    return str(now - datetime.timedelta(seconds=seconds))


def _write(bench: Bench, statement: str, values: tuple[Any, ...]) -> None:
    with bench.storage.backend.engine.begin() as connection:
        connection.exec_driver_sql(statement, values)
