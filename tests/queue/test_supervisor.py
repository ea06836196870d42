"""Several workers at once, what they show, and what becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console

from audio_cls.cli.leaderboard import leaderboard
from audio_cls.cli.queue_progress import Progress
from audio_cls.core.errors import UserError
from audio_cls.core.formatting import duration
from audio_cls.core.workspace import WORKSPACE_VARIABLE, Workspace
from audio_cls.queue.options import QueueOptions
from audio_cls.queue.places import log_folder
from audio_cls.queue.process import WorkTarget
from audio_cls.queue.status import StudyStatus, study_status, summary
from audio_cls.queue.storage import Heartbeat, load_study, open_storage, open_study
from audio_cls.queue.supervisor import gpu_slots, run_workers
from audio_cls.study import load_study_file
from tests.study_fakes import FakeObjective, declare, outcomes, work

ROOT = str(Path(__file__).resolve().parents[2])
SUPERVISOR = f"""
import sys; sys.path.insert(0, {ROOT!r})
from pathlib import Path
from audio_cls.cli.console import ConsoleDisplay
from audio_cls.core.notices import install
from tests.queue.test_supervisor import supervise
install(ConsoleDisplay())
supervise(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), on_progress=None, grace_seconds=20)
"""
FILE = "from tests.study_fakes import declare\nSTUDY = declare()\n"


@pytest.fixture(autouse=True)
def _workers_find_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ROOT)


def supervise(
    folder: Path, total: int, workers: int, seconds: float = 0.02, *, function: str = "open_toy", file: str = FILE,
    on_progress: Any = lambda _: None, **settings: Any,
) -> StudyStatus:  # fmt: skip
    (folder / "toy.py").write_text(file)
    target = WorkTarget(
        f"tests.study_fakes:{function}",
        {"file": str(folder / "toy.py"), "folder": str(folder / "runs"), "seconds": seconds},
    )
    options = QueueOptions(**{"workers": workers, "poll_seconds": 0.1, **settings})
    return run_workers(
        load_study_file(folder / "toy.py")[0], Workspace(folder), total, target, options, on_progress=on_progress
    )


def _study(folder: Path) -> optuna.Study:
    return load_study("toy", open_storage(folder / "optuna.db", must_exist=True))


def _workers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            ours = "audio_cls.queue.process" in process.cmdline() and process.environ()[WORKSPACE_VARIABLE] == str(
                folder
            )
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, KeyError):
            continue
    return found


def _wait_for(what: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_two_workers_reach_the_total_though_one_is_killed(tmp_path: Path) -> None:
    seen: list[StudyStatus] = []

    def kill_one() -> None:
        _wait_for(lambda: (tmp_path / "runs/epochs.log").exists())
        _workers(tmp_path)[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    status = supervise(tmp_path, 8, 2, 0.05, on_progress=seen.append)
    killer.join()
    assert (status.finished, status.running, status.waiting, status.total) == (8, 0, 0, 8)
    assert sorted(outcomes(_study(tmp_path))) == list(range(8))
    assert [s.finished for s in seen] == sorted(s.finished for s in seen)
    assert status.best is not None
    assert status.best.value == _study(tmp_path).best_value
    assert all((log_folder(tmp_path, "toy") / f"worker-{i}.log").stat().st_size for i in range(2))
    assert supervise(tmp_path, 8, 2, 0.05).attempts == status.attempts


def test_ctrl_c_leaves_a_clean_state_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(FILE)
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path), "20", "2", "0.2"], stdout=subprocess.PIPE, text=True
    )
    _wait_for(lambda: (tmp_path / "runs/epochs.log").exists())
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "SIGINT: the workers finish their epoch and leave" in out
    assert _workers(tmp_path) == []
    states = {t.state for t in _study(tmp_path).trials}
    assert TrialState.RUNNING not in states
    assert TrialState.WAITING in states
    work(declare(), tmp_path, 3, FakeObjective(tmp_path / "runs"))
    assert sorted(outcomes(_study(tmp_path))) == [0, 1, 2]


def test_a_killed_supervisor_takes_its_workers_along(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(FILE)
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path), "20", "1", "0.1"], stdout=subprocess.DEVNULL
    )
    _wait_for(lambda: (tmp_path / "runs/epochs.log").exists())
    process.kill()
    process.wait()
    _wait_for(lambda: _workers(tmp_path) == [])
    assert [
        t.state.name for t in _study(tmp_path).trials if t.state not in (TrialState.COMPLETE, TrialState.PRUNED)
    ] == ["FAIL", "WAITING"]


@pytest.mark.slow
def test_a_stopped_worker_is_ended_and_replaced(tmp_path: Path) -> None:
    def stop_one() -> None:
        _wait_for(lambda: (tmp_path / "runs/epochs.log").exists())
        time.sleep(0.15)  # into an epoch: within a transaction it would take the database along for a minute
        os.kill(_workers(tmp_path)[0].pid, signal.SIGSTOP)

    stopper = threading.Thread(target=stop_one)
    stopper.start()
    status = supervise(tmp_path, 4, 1, 0.3, heartbeat=Heartbeat(1, 2))
    stopper.join()
    assert status.finished == 4


def test_a_users_mistake_in_a_worker_ends_the_run_with_its_message(tmp_path: Path) -> None:
    file = FILE.replace("declare()", "declare(space=lambda trial: {'model.widht': trial.suggest_int('w', 1, 3)})")
    with pytest.raises(UserError, match=r"model\.widht.*Did you mean 'model\.width'"):
        supervise(tmp_path, 4, 1, 0.0, file=file)


def test_workers_that_cannot_start_end_the_run_with_their_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audio_cls.queue.supervisor.CRASHES", 1)
    with pytest.raises(UserError, match=r"ended with code 1 2 times in a row(.|\n)*no_such"):
        supervise(tmp_path, 2, 1, function="no_such")


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert gpu_slots() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_slots() == []


def test_a_worker_is_given_its_threads_and_its_gpu(tmp_path: Path) -> None:
    supervise(tmp_path, 5, 3, function="tell_environment", gpus=("4", "7"), threads=3)
    assert [json.loads((tmp_path / "runs" / str(i)).read_text()) for i in range(3)] == [
        ["3", "4", True],
        ["3", "7", True],
        ["3", "4", True],
    ]


@pytest.mark.parametrize(("trials", "workers"), [(0, 1), (1, 0)])
def test_a_run_of_nothing_is_refused(tmp_path: Path, trials: int, workers: int) -> None:
    with pytest.raises(UserError, match="must be 1 or more"):
        supervise(tmp_path, trials, workers)


# -- status -------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """One of everything."""
    study = open_study(declare(), open_storage(tmp_path / "optuna.db"))
    study.set_user_attr("total", 8)
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}

    def add(state: TrialState, value: float | None, **attrs: Any) -> None:
        study.add_trial(create_trial(state=state, value=value, params={"x": 0.25}, distributions=space, user_attrs={"ready": True, **attrs}, intermediate_values={0: 0.5}))  # fmt: skip

    add(TrialState.COMPLETE, 0.6, config=0)
    add(TrialState.PRUNED, 0.2, config=1, reason="pruned: epoch 0: 0.2 below the median 0.5 of 3 trials")
    add(TrialState.FAIL, None, config=2, outcome="failed", reason="oom: 3 GiB")
    add(TrialState.FAIL, None, config=3, outcome="interrupted", reason="SIGTERM")
    add(TrialState.COMPLETE, 0.8, config=3, attempt=1, root_trial=3, resumed_from=3)
    add(TrialState.PRUNED, 0.1, config=4)
    add(TrialState.COMPLETE, 0.7, config=4, attempt=1, root_trial=5, resumed_from=5, revived=True)
    add(TrialState.FAIL, None, config=5, outcome="failed", reason="error: ValueError: odd")
    add(TrialState.WAITING, None, config=6)
    study._storage.set_trial_state_values(study.trials[8]._trial_id, TrialState.RUNNING)
    add(TrialState.WAITING, None, config=7)
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.1))
    return study


def test_status_counts_configurations(study: optuna.Study) -> None:
    status = study_status(study)
    assert (status.total, status.finished, status.complete, status.pruned) == (8, 6, 3, 1)
    assert status.failed == {"oom": 1, "error: ValueError": 1}
    assert (status.running, status.waiting, status.revived, status.interruptions, status.others, status.attempts) == (
        1,
        1,
        1,
        1,
        1,
        11,
    )
    assert status.best is not None
    assert (status.best.number, status.best.value, status.best.params) == (4, 0.8, {"x": 0.25})
    assert [r.number for r in status.rows] == [4, 6, 0, 10, 1, 2, 7, 8, 9]
    text = "\n".join(summary(status))
    for part in (
        "6 of 8 configurations finished (3 complete, 1 pruned, 2 failed), 1 running, 1 waiting",
        "1 oom",
        "best: trial 4",
        "1 pruned configuration revived",
    ):
        assert part in text


def test_the_leaderboard_of_a_minimised_study_begins_with_the_smallest(tmp_path: Path) -> None:
    study = open_study(declare(direction="minimize"), open_storage(tmp_path / "optuna.db"))
    for config, value in enumerate((0.5, 0.1, 0.9)):
        study.add_trial(create_trial(value=value, params={}, user_attrs={"config": config}))
    assert [r.value for r in study_status(study).rows] == [0.1, 0.5, 0.9]


def test_the_leaderboard_is_readable(study: optuna.Study) -> None:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(leaderboard(study_status(study), limit=3))
    text = console.export_text()
    assert "val/macro_f1 (maximize)" in text
    assert "complete (revived)" in text
    assert "0.8" in text
    assert "0.2" not in text.replace("0.25", "")


def test_progress_prints_each_end_once_with_its_reason(study: optuna.Study) -> None:
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with Progress(console, line_seconds=0.0) as progress:
        progress.update(study_status(study))
        study.tell(8, 0.9)
        progress.update(study_status(study))
        progress.update(study_status(study))
    text = console.export_text()
    assert text.count("trial 8 (configuration 6) complete val/macro_f1 0.9000 (best so far)") == 1
    assert "trial 4 complete" not in text, "what was finished before is not told again"
    assert "toy: 7/8 finished, 0 running, 1 pruned, 2 failed, best 0.9000" in text


def test_progress_names_the_metric_that_a_cell_s_value_is_of(study: optuna.Study) -> None:
    done = next(row for row in study_status(study).rows if row.state == "COMPLETE")
    experiments = (None, '{"training": {"metric": "val/accuracy"}}')
    rows = [
        replace(done, number=i, params={"arm": f"a{i}"}, record=replace(done.record, experiment=experiments[i]))
        for i in range(2)
    ]
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with Progress(console) as progress:
        for shown in ((), tuple(rows)):
            progress.update(replace(study_status(study), kind="ablation", rows=shown))
    text = console.export_text()
    assert f"arm a0 complete val/macro_f1 {done.value:.4f}" in text, "the suite's, where no experiment is stored"
    assert f"arm a1 complete val/accuracy {done.value:.4f}" in text


def test_durations_read_well() -> None:
    assert [duration(s) for s in (None, 1.23, 42.4, 200, 7500)] == ["", "1.2 s", "42 s", "3 min 20 s", "2 h 05 min"]


def test_the_optuna_command_reads_our_studies(tmp_path: Path) -> None:
    work(declare(), tmp_path, 5, FakeObjective(tmp_path / "runs"))
    optuna_command = str(Path(sys.executable).with_name("optuna"))

    def ask(*words: str) -> Any:
        done = subprocess.run(
            [optuna_command, *words, "--storage", f"sqlite:///{tmp_path / 'optuna.db'}", "-f", "json"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert [t["number"] for t in ask("trials", "--study-name", "toy")] == [0, 1, 2, 3, 4]
    best = ask("best-trial", "--study-name", "toy")
    assert best["number"] == _study(tmp_path).best_trial.number
