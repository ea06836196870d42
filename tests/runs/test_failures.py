"""Failures as outcomes: want of memory, divergence, a fault in a model, a full disk, a database away. None costs a trial or harms the next."""

from __future__ import annotations

import errno
import gc
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from torch import nn

from audio_cls.components.models.small_cnn import SmallCnn
from audio_cls.core import disk
from audio_cls.core.disk import DiskFull, is_disk_full
from audio_cls.core.stopping import StopRequest
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.queue.storage import load_study, open_storage
from audio_cls.queue.tracked import settle_runs
from audio_cls.queue.worker import RepeatedFailure
from audio_cls.runs.collapse import tell_collapse
from audio_cls.runs.objective import Outcome, Record, run_experiment
from audio_cls.runs.page_data import run_page
from audio_cls.runs.preparation import Runtime
from audio_cls.study import TPE, Study
from audio_cls.study.search import trial_objective
from audio_cls.tracking import Run, Tracker
from audio_cls.tracking.outbox import Outbox
from audio_cls.training.checkpoint import CheckpointStore, read
from tests.servers import Missing, small_disk
from tests.study_fakes import work

EPOCHS = 4
BASE = Experiment.parse(
    {
        "data": {"corpus": "tones", "sample_rate": 8000, "clip_seconds": 1.0},
        "features": {"kind": "log_mel", "n_fft": 256, "hop_length": 128, "n_mels": 32},
        "model": {"kind": "small_cnn"},
        "training": {"epochs": EPOCHS, "batch_size": 16, "metric": "val/macro_f1", "precision": "fp32"},
    }
)


@pytest.fixture(scope="module")
def root(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failures")
    (folder / "corpora").symlink_to(tones_corpus.parent)
    return folder


@pytest.fixture
def runtime(root: Path) -> Runtime:
    torch.set_num_threads(1)
    workspace = Workspace(root)
    return Runtime(workspace, Tracker(workspace, retry_seconds=0.0), torch.device("cpu"), disk_wait_seconds=0.3)


class Hooked(nn.Module):
    """A model to which something happens in training."""

    def __init__(self, inner: nn.Module, happens: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
        super().__init__()
        self.inner, self.happens = inner, happens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.happens(x) if self.training else None
        return self.inner(x) if out is None else out


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[torch.Tensor], torch.Tensor | None]], list[Any]]:
    """Let something happen at each training step of every model made from here on; returns weak references to the models."""
    build = SmallCnn.build

    def install(happens: Callable[[torch.Tensor], torch.Tensor | None]) -> list[Any]:
        made: list[Any] = []

        def hooked(self: SmallCnn, shape: tuple[int, ...], n_classes: int) -> nn.Module:
            model = Hooked(build(self, shape, n_classes), happens)
            made.append(weakref.ref(model))
            return model

        monkeypatch.setattr(SmallCnn, "build", hooked)
        return made

    return install


def train(runtime: Runtime, folder: Path, name: str = "r", **settings: Any) -> Outcome:
    record = Record(name, run_id=settings.pop("run_id", None), on_run_id=settings.pop("on_run_id", None))
    return run_experiment(BASE, runtime, record, CheckpointStore(folder), **settings)


def curve(folder: Path) -> list[dict[str, float]]:
    history = read(folder / "last.safetensors").state["history"]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in history]


def the_run(runtime: Runtime, name: str) -> Any:
    found = runtime.tracker.runs(filter=f"attributes.run_name = '{name}'")
    assert len(found) == 1
    return found[0]


def steps(runtime: Runtime, name: str) -> list[int]:
    return [step for step, _ in runtime.tracker.curve(the_run(runtime, name).run_id, "val/macro_f1")]


# -- memory -------------------------------------------------------------------------------------------------------------


def hungry(limit: int) -> Callable[[torch.Tensor], None]:
    def happens(x: torch.Tensor) -> None:
        if len(x) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    return happens


def test_a_batch_too_large_is_trained_in_parts(runtime: Runtime, tmp_path: Path, hook: Any) -> None:
    hook(hungry(4))
    outcome = train(runtime, tmp_path / "a", "parts")
    assert (outcome.state, outcome.attrs["accumulate"]) == ("COMPLETE", 4)
    run = the_run(runtime, "parts")
    assert (run.state, run.tags["accumulate"], run.params["training.batch_size"]) == ("COMPLETE", "4", "16")
    assert steps(runtime, "parts") == list(range(EPOCHS))


def test_want_of_memory_in_a_late_epoch_keeps_the_earlier_ones(runtime: Runtime, tmp_path: Path, hook: Any) -> None:
    seen = [0]

    def happens(x: torch.Tensor) -> None:
        seen[0] += 1
        if seen[0] == 3 and len(x) > 8:  # two steps an epoch: the first of the second one
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook(happens)
    told: list[int] = []
    outcome = train(runtime, tmp_path / "a", "late", report=lambda epoch, _: told.append(epoch))
    assert (outcome.state, outcome.attrs["accumulate"]) == ("COMPLETE", 2)
    assert sorted(set(told)) == list(range(EPOCHS))
    assert steps(runtime, "late") == list(range(EPOCHS))


def _too_much(x: torch.Tensor) -> torch.Tensor:
    return torch.empty(1 << 58, dtype=torch.float32)


def test_no_part_is_small_enough(runtime: Runtime, tmp_path: Path, hook: Any) -> None:
    """A really impossible allocation; then the memory is free, and the next run is what it would have been."""
    alone = Runtime(runtime.workspace, runtime.tracker, runtime.device)
    train(alone, tmp_path / "alone", "alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SmallCnn, "build", SmallCnn.build)
        made = hook(_too_much)
        outcome = train(runtime, tmp_path / "a", "oom")
    assert (outcome.state, outcome.value, outcome.reason) == ("FAILED", None, "oom")
    gc.collect()
    assert len(made) == 3  # 16, 8 and 4 clips at a time
    assert [ref() for ref in made] == [None] * 3
    run = the_run(runtime, "oom")
    assert (run.status, run.state, run.tags["reason"]) == ("FAILED", "FAILED", "oom")
    assert "parts of 4 clips" in runtime.tracker.download(run.run_id, "failure.txt").read_text()
    hook(lambda x: None)
    train(runtime, tmp_path / "next", "next")
    assert curve(tmp_path / "next") == curve(tmp_path / "alone")


def test_a_model_too_large_to_be_made(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmallCnn, "build", lambda self, shape, n: nn.Linear(1 << 29, 1 << 29))
    outcome = train(runtime, tmp_path / "a", "huge")
    assert (outcome.state, outcome.reason) == ("FAILED", "oom")
    assert the_run(runtime, "huge").state == "FAILED"


# -- divergence and faults ----------------------------------------------------------------------------------------------


def test_divergence_ends_a_run_and_keeps_its_last_finite_epoch(runtime: Runtime, tmp_path: Path, hook: Any) -> None:
    seen = [0]

    def happens(x: torch.Tensor) -> torch.Tensor | None:
        seen[0] += 1
        return None if seen[0] <= 4 else torch.full((len(x), 3), torch.nan, requires_grad=True)

    hook(happens)
    outcome = train(runtime, tmp_path / "a", "nan")
    assert (outcome.state, outcome.value) == ("FAILED", None)
    assert outcome.reason == "diverged: the training loss of epoch 3 is nan"
    assert steps(runtime, "nan") == [0, 1]
    assert read(tmp_path / "a" / "last.safetensors").state["epoch"] == 1


def test_a_run_whose_loss_explodes_has_collapsed(runtime: Runtime, tmp_path: Path) -> None:
    """Its figures are finite, so it is complete; it says what they are worth."""
    wild = BASE.override({"optimizer": {"kind": "sgd", "lr": 1000.0}, "training.epochs": 2})
    outcome = run_experiment(wild, runtime, Record("wild"), CheckpointStore(tmp_path / "wild"))
    assert outcome.state == "COMPLETE"
    run = the_run(runtime, "wild")
    assert run.tags["collapsed"] == tell_collapse(outcome.attrs["collapsed"])
    assert run.tags["collapsed"].startswith("Collapsed")
    assert "the training loss rose from" in run.tags["collapsed"]
    assert run.tags["findings"].startswith(run.tags["collapsed"])
    assert outcome.attrs["findings"][0] == run.tags["collapsed"]
    assert "Collapsed at the last epoch: " in run_page(runtime.workspace, runtime.tracker, run, "cpu")


def study_of(runtime: Runtime, name: str, trials: int, space: Any = None, **settings: Any) -> Any:
    def default(trial: Any) -> dict[str, Any]:
        return {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}

    declared = Study(name, base=BASE, space=space or default, sampler=TPE(seed=0, startup_trials=2))
    file = runtime.workspace.root / f"{name}.py"
    file.write_text("# a study\n")
    try:
        work(declared, runtime.workspace.root, trials, trial_objective(runtime, declared, None, file), **settings)
    finally:
        study = load_study(name, open_storage(runtime.workspace.optuna_db))
    return study


def test_a_study_tells_divergence_without_a_value_and_goes_on(runtime: Runtime, hook: Any) -> None:
    seen = [0]

    def happens(x: torch.Tensor) -> torch.Tensor | None:
        seen[0] += 1
        return torch.full((len(x), 3), torch.inf, requires_grad=True) if seen[0] == 3 else None

    hook(happens)
    trials = study_of(runtime, "diverging", 2).trials
    assert [(t.state.name, t.value is None) for t in trials] == [("FAIL", True), ("COMPLETE", False)]
    assert trials[0].user_attrs["reason"].startswith("diverged: the training loss of epoch 2 is")


def test_a_fault_in_a_model_is_an_artifact_and_the_study_goes_on(runtime: Runtime, hook: Any) -> None:
    seen = [0]

    def happens(x: torch.Tensor) -> None:
        seen[0] += 1
        if seen[0] == 3:
            raise ValueError("the user's own mistake")

    hook(happens)
    trials = study_of(runtime, "faulty", 2).trials
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE"]
    reason = trials[0].user_attrs["reason"]
    assert reason.startswith(f"error: ValueError: the user's own mistake ({__file__}, line ")
    text = runtime.tracker.download(trials[0].user_attrs["mlflow_run_id"], "failure.txt").read_text()
    assert "Traceback" in text
    assert "in happens" in text


def test_a_fault_while_the_model_is_made_is_recorded_as_well(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(self: SmallCnn, shape: tuple[int, ...], n_classes: int) -> nn.Module:
        raise KeyError("no such layer")

    monkeypatch.setattr(SmallCnn, "build", build)
    outcome = train(runtime, tmp_path / "a", "unmade")
    assert outcome.reason.startswith(f"error: KeyError: 'no such layer' ({__file__}, line ")
    assert "in build" in Path(outcome.attrs["failure"]).read_text(encoding="utf-8")
    run = the_run(runtime, "unmade")
    assert "in build" in runtime.tracker.download(run.run_id, "failure.txt").read_text()


def test_a_study_whose_first_trials_fail_alike_stops_and_says_why(runtime: Runtime, hook: Any) -> None:
    def happens(x: torch.Tensor) -> None:
        raise ValueError("always")

    hook(happens)
    with pytest.raises(
        RepeatedFailure, match=r"first 3 trials all failed in the same way: error: ValueError: always(.|\n)*in happens"
    ):
        study_of(runtime, "hopeless", 9, same_failures=3)


def test_a_database_that_is_away_is_no_fault_of_the_run(runtime: Runtime, tmp_path: Path) -> None:
    def report(epoch: int, value: float) -> None:
        if epoch == 1:
            raise StorageInternalError("the connection was closed")

    with pytest.raises(StorageInternalError, match="was closed"):
        train(runtime, tmp_path / "a", "away", report=report)
    run = the_run(runtime, "away")
    assert run.state == "RUNNING"
    outcome = train(runtime, tmp_path / "a", "away", run_id=run.run_id)
    assert outcome.state == "COMPLETE"
    assert steps(runtime, "away") == list(range(EPOCHS))


# -- asked to leave -----------------------------------------------------------------------------------------------------


def test_leaving_in_the_middle_of_an_epoch_costs_that_epoch_only(runtime: Runtime, tmp_path: Path) -> None:
    asked = [0]

    def leave_now() -> str | None:
        asked[0] += 1
        return "interrupted: SIGTERM, and the epoch took longer than 1 s" if asked[0] == 4 else None

    runs: list[str] = []
    outcome = train(runtime, tmp_path / "a", "left", leave_now=leave_now, on_run_id=runs.append)
    assert (outcome.state, outcome.attrs["epochs"]) == ("INTERRUPTED", 1)
    assert "longer than 1 s" in outcome.reason
    assert train(runtime, tmp_path / "a", "left", run_id=runs[0]).state == "COMPLETE"
    train(runtime, tmp_path / "b", "not left")
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert steps(runtime, "left") == list(range(EPOCHS))


def test_who_is_asked_to_leave_has_a_stated_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    request = StopRequest(grace=5.0)
    assert request.overdue() is None
    clock[0] += 1000
    request.ask("SIGTERM")
    clock[0] += 4.9
    assert request.overdue() is None
    clock[0] += 0.2
    assert request.overdue() == "SIGTERM, and the epoch took longer than 5 s"


@pytest.mark.slow
def test_train_leaves_on_sigterm_and_goes_on(root: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "audio_cls.cli",
        "--workspace",
        str(root),
        "train",
        str(root / "long.json"),
        "--device",
        "cpu",
    ]
    (root / "long.json").write_text(BASE.override({"training.epochs": 5000, "seed": 9}).to_json())
    process = subprocess.Popen([*words, "--grace", "5"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    states = root / "checkpoints" / "runs"
    deadline = time.monotonic() + 120
    while not any(json.loads(p.read_text())["epoch"] >= 1 for p in states.glob("*/run.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    asked = time.monotonic()
    process.terminate()
    shown, _ = process.communicate(timeout=60)
    assert time.monotonic() - asked < 25
    assert process.returncode == 130
    assert "interrupted: SIGTERM after epoch" in shown
    assert "the same command goes on" in shown
    state = json.loads(next(states.glob("*/run.json")).read_text())
    assert state["state"] == "INTERRUPTED"
    assert read(next(states.glob("*/last.safetensors"))).state["epoch"] == state["epoch"]


def test_who_lost_the_run_writes_over_nothing(runtime: Runtime, tmp_path: Path) -> None:
    """Stopped after its second epoch, for so long that another process has finished the run in the meantime."""
    runs: list[str] = []
    told: list[int] = []

    def is_mine() -> bool:
        if len(told) < 2:
            return True
        if len(told) == 2:
            told.append(-1)
            store = CheckpointStore(tmp_path / "second", (tmp_path / "first",))
            outcome = run_experiment(BASE, runtime, Record("taken", run_id=runs[0]), store)
            assert outcome.state == "COMPLETE"
        return False

    outcome = train(
        runtime, tmp_path / "first", "taken", is_mine=is_mine, on_run_id=runs.append, report=lambda e, _: told.append(e)
    )
    assert (outcome.state, outcome.reason) == ("INTERRUPTED", "lease lost")
    run = the_run(runtime, "taken")
    assert (run.state, run.status) == ("COMPLETE", "FINISHED")
    assert steps(runtime, "taken") == list(range(EPOCHS))


def test_an_epoch_sent_by_two_processes_is_one_record(runtime: Runtime) -> None:
    """Halted between its last look at the lease and the request: what it sends on waking is what its successor has sent."""
    run = runtime.tracker.start("twice", "twice", kind="trial")
    other = Tracker(runtime.workspace).reopen(run.id)
    other._sender.careful = False
    for who in (run, other):
        who.epoch(0, {"val/macro_f1": 0.25, "train/loss": 1.5}, at=1.7e9)
    run.epoch(1, {"val/macro_f1": 0.5}, at=1.7e9 + 1)
    assert runtime.tracker.curve(run.id, "val/macro_f1") == [(0, 0.25), (1, 0.5)]
    assert runtime.tracker.curve(run.id, "train/loss") == [(0, 1.5)]


def test_nothing_is_recorded_once_the_guard_says_no(runtime: Runtime) -> None:
    mine = [True]
    run = runtime.tracker.guarded(lambda: mine[0]).start("guarded", "guarded", kind="trial")
    run.epoch(0, {"loss": 1.0})
    mine[0] = False
    run.epoch(1, {"loss": 2.0})
    run.finish("INTERRUPTED", "late")
    found = the_run(runtime, "guarded")
    assert (found.state, found.status) == ("RUNNING", "RUNNING")
    assert runtime.tracker.curve(found.run_id, "loss") == [(0, 1.0)]


def test_a_state_written_too_late_is_mended(runtime: Runtime) -> None:
    study = study_of(runtime, "settled", 1)
    name = "settled 000"
    runtime.tracker.start("clips/multiclass", name, kind="trial", run_id=study.trials[0].user_attrs["mlflow_run_id"])
    assert the_run(runtime, name).state == "RUNNING"
    assert settle_runs(runtime.tracker, "clips/multiclass", study) == 1
    run = the_run(runtime, name)
    assert (run.state, run.status) == ("COMPLETE", "FINISHED")
    assert settle_runs(runtime.tracker, "clips/multiclass", study) == 0


@pytest.mark.parametrize("moment", ["before it is kept", "after the run was made"])
def test_a_death_while_the_run_is_made_leaves_one_run(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Killed(BaseException):
        pass

    name = f"death-{len(moment)}"
    with monkeypatch.context() as patch:
        if moment == "before it is kept":
            patch.setattr(Tracker, "start", lambda *args, **kwargs: (_ for _ in ()).throw(Killed()))
        else:
            patch.setattr(Run, "id", property(lambda self: (_ for _ in ()).throw(Killed())))
        with pytest.raises(Killed):
            study_of(runtime, name, 1)
    study = load_study(name, open_storage(runtime.workspace.optuna_db))
    study.tell(0, state=TrialState.FAIL)  # as its death would be found
    trials = study_of(runtime, name, 1).trials
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE"]
    run = the_run(runtime, f"{name} 000")
    assert run.state == "COMPLETE"
    assert run.run_id == trials[-1].user_attrs["mlflow_run_id"]


# -- a full disk --------------------------------------------------------------------------------------------------------


def test_lack_of_room_is_recognised_whatever_raises_it() -> None:
    import sqlite3

    import sqlalchemy as sa

    class Full(Exception):
        sqlstate = "53100"

    plain = OSError(errno.ENOSPC, "No space left on device")
    wrapped = StorageInternalError("cannot commit")
    wrapped.__cause__ = sa.exc.OperationalError("insert", {}, sqlite3.OperationalError("database or disk is full"))
    assert all(map(is_disk_full, (plain, wrapped, sa.exc.OperationalError("x", {}, Full()), DiskFull("disk full"))))
    assert not any(
        map(
            is_disk_full,
            (OSError(errno.EACCES, "denied"), ValueError("disk is full"), sqlite3.OperationalError("locked")),
        )
    )


def no_room(count: int, path_part: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The next `count` files written under a path with `path_part` in it meet a full disk, half written."""
    refused: list[str] = []
    fsync = os.fsync

    def full(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path_part in path and os.path.isfile(path) and len(refused) < count:
            refused.append(path)
            os.ftruncate(fd, os.fstat(fd).st_size // 2)
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(disk, "PAUSE_SECONDS", 0.01)
    return refused


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_room_that_comes_back_in_time_costs_nothing(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = no_room(3, "spare", monkeypatch)
    assert train(runtime, tmp_path / "spare", "waits").state == "COMPLETE"
    assert len(refused) == 3
    assert steps(runtime, "waits") == list(range(EPOCHS))
    assert not list((tmp_path / "spare").glob(".*"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with small_disk(tmp_path / "small", "3m") as folder:
            yield folder
    except Missing as error:
        pytest.skip(str(error))


def test_a_disk_that_stays_full_interrupts_and_corrupts_nothing(
    runtime: Runtime, full_disk: Path, tmp_path: Path
) -> None:
    """On a real file system that is full: first the checkpoint does not fit, then there is room again."""
    runs: list[str] = []

    def fill(epoch: int, value: float) -> None:
        if epoch == 1:
            with open(full_disk / "ballast", "wb") as file:
                try:
                    while file.write(b"x" * 4096) and not file.flush():
                        pass
                except OSError:
                    pass

    train(runtime, tmp_path / "whole", "undisturbed")
    try:
        outcome = train(runtime, full_disk / "run", "full", report=fill, on_run_id=runs.append)
    finally:
        gc.collect()
    assert (outcome.state, outcome.reason.split(":")[0]) == ("INTERRUPTED", "disk full")
    assert read(full_disk / "run" / "last.safetensors").state["epoch"] == 1
    assert not list((full_disk / "run").glob(".*"))
    (full_disk / "ballast").unlink()
    assert train(runtime, full_disk / "run", "full", run_id=runs[0]).state == "COMPLETE"
    assert curve(full_disk / "run") == curve(tmp_path / "whole")
    assert steps(runtime, "full") == list(range(EPOCHS))


def test_no_room_for_the_record_of_a_complete_run(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither MLflow nor the outbox can write: the run is not told complete, since its weights would not be there."""
    full = OSError(errno.ENOSPC, "No space left on device")
    runs: list[str] = []
    with monkeypatch.context() as patch:

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise full

        def fill(epoch: int, value: float) -> None:
            if epoch == EPOCHS - 1:
                client = runtime.tracker._link.connected().client
                for name in ("log_artifact", "log_text"):
                    patch.setattr(client, name, refuse)
                patch.setattr(Outbox, "_write", refuse)

        outcome = train(runtime, tmp_path / "a", "roomless", report=fill, on_run_id=runs.append)
    assert (outcome.state, outcome.reason) == ("INTERRUPTED", "disk full: there was no room for the run's record")
    later = Runtime(runtime.workspace, Tracker(runtime.workspace), runtime.device)
    later.tracker.flush()
    assert train(later, tmp_path / "a", "roomless", run_id=runs[0]).state == "COMPLETE"
    run = the_run(later, "roomless")
    assert run.state == "COMPLETE"
    read(later.tracker.download(run.run_id, "weights/best.safetensors"))
    assert steps(later, "roomless") == list(range(EPOCHS))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_worker_on_a_full_disk_leaves_its_trial_and_says_so(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        no_room(10**9, "checkpoints/studies/roomy", patch)
        with pytest.raises(
            DiskFull, match=r"^disk full: .*No space left.*Nothing is lost: make room \(the workspace is /"
        ):
            study_of(runtime, "roomy", 1)
    study = load_study("roomy", open_storage(runtime.workspace.optuna_db))
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]
    assert study.trials[0].user_attrs["outcome"] == "interrupted"
    assert study.trials[0].user_attrs["reason"].startswith("disk full")
    done = study_of(runtime, "roomy", 1)
    assert [t.state.name for t in done.trials] == ["FAIL", "COMPLETE"]
    assert sorted(done.trials[1].intermediate_values) == list(range(EPOCHS))
