"""Being asked to leave in each phase of a run, what is shown meanwhile, and that the run then goes on bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_cls.components.models.logistic_regression import _LogisticRegression
from audio_cls.core.phases import PHASE_FILE, read_phases, write_phase
from audio_cls.core.stopping import Abandoned, StopRequest, Watch
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.runs.preparation import Runtime
from audio_cls.runs.single import RunState, SingleRun, continue_run, read_state, run_folder
from audio_cls.tracking import Run, Tracker
from audio_cls.tracking.run import FIGURES
from audio_cls.training.checkpoint import read

BASE = Experiment.parse(
    {
        "data": {"corpus": "tones", "sample_rate": 8000, "clip_seconds": 1.0},
        "features": {"kind": "log_mel", "n_fft": 256, "hop_length": 128, "n_mels": 32},
        "model": {"kind": "small_cnn"},
        "training": {"epochs": 3, "batch_size": 8, "precision": "fp32"},
    }
)
CLOSED = BASE.override({"model.kind": "logistic_regression", "features": {"kind": "mfcc_statistics", "n_fft": 256}})


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("stopping")
    (folder / "corpora").symlink_to(tones_corpus.parent)
    return Workspace(folder)


def make_runtime(workspace: Workspace, watch: Watch | None = None) -> Runtime:
    torch.set_num_threads(1)
    return Runtime(workspace, Tracker(workspace), torch.device("cpu"), watch=watch or Watch())


def train(workspace: Workspace, key: str, experiment: Experiment = BASE, watch: Watch | None = None) -> RunState:
    return continue_run(SingleRun(key, experiment, key), make_runtime(workspace, watch))


def asking_at(phase: str, done: int, grace: float = 0.0) -> tuple[Watch, list[str]]:
    """A watch that is asked to leave when `phase` has come to `done`, and the phases that it was told of."""
    stop, told = StopRequest(grace=grace), []

    def tell(name: str, n: int, total: int) -> None:
        told.append(name)
        if name == phase and n >= done:
            stop.ask("SIGTERM")

    return Watch(stop, tell), told


def plain(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in history]


@pytest.mark.parametrize(
    ("phase", "done", "epochs"),
    [
        ("computing features", 16, 0),
        ("normalisation", 0, 0),
        ("epoch 1", 8, 0),
        ("epoch 3", 0, 2),
        ("evaluation", 0, 0),
        ("writing results", 2, 3),
    ],
)
def test_a_run_that_is_left_in_any_phase_goes_on_bit_for_bit(
    phase: str, done: int, epochs: int, workspace: Workspace
) -> None:
    key = f"{phase}-{done}".replace(" ", "-")
    watch, told = asking_at(phase, done)
    left = train(workspace, key, watch=watch)
    assert (left.state, left.epoch + 1) == ("INTERRUPTED", epochs)
    assert left.reason.startswith("interrupted: SIGTERM")
    assert told[-1] == phase, "nothing is begun after that"
    assert read_state(run_folder(workspace, key)).state == "INTERRUPTED"
    if left.run_id is not None:
        assert Tracker(workspace).resolve(left.run_id).state == "INTERRUPTED"
    again = train(workspace, key)
    whole = train(workspace, "whole")  # trained once, then found
    assert (again.state, again.metrics, again.last) == ("COMPLETE", whole.metrics, whole.last)
    mine, theirs = (read(run_folder(workspace, k) / "last.safetensors") for k in (key, "whole"))
    assert all(torch.equal(mine.tensors[name], value) for name, value in theirs.tensors.items())
    assert plain(mine.state["history"]) == plain(theirs.state["history"])


def test_a_closed_form_is_left_behind_when_the_grace_is_over(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, told = asking_at("fitting the model", 0)
    left_behind = threading.Event()

    def fit_for_ever(*args: Any, **settings: Any) -> None:
        left_behind.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr(_LogisticRegression, "fit_closed_form", fit_for_ever)
        left = train(workspace, "closed", CLOSED, watch)
        left_behind.set()
    assert (left.state, left.epoch, told[-1]) == ("INTERRUPTED", -1, "fitting the model")
    assert train(workspace, "closed", CLOSED).state == "COMPLETE"


def test_the_epoch_is_finished_while_there_is_time(workspace: Workspace) -> None:
    watch, _ = asking_at("evaluation", 0, grace=1000.0)
    left = train(workspace, "in-time", watch=watch)
    assert (left.state, left.epoch, left.reason) == ("INTERRUPTED", 0, "interrupted: SIGTERM")


def test_a_run_that_goes_on_is_shown_from_where_it_was(workspace: Workspace) -> None:
    begun: list[int] = []
    told: list[int] = []
    watch, _ = asking_at("epoch 3", 0)
    train(workspace, "shown", watch=watch)
    state = continue_run(
        SingleRun("shown", BASE, "shown"), make_runtime(workspace), on_begin=begun.append,
        on_epoch=lambda epoch, value: told.append(epoch),
    )  # fmt: skip
    assert (begun, told, state.epoch) == ([2], [2], 2)


def test_a_damaged_checkpoint_costs_epochs_and_no_result(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    watch, _ = asking_at("epoch 3", 0)
    left = train(workspace, "damaged", watch=watch)
    path = run_folder(workspace, "damaged") / "last.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    again, whole = train(workspace, "damaged"), train(workspace, "whole")
    assert (again.state, again.metrics, again.run_id) == ("COMPLETE", whole.metrics, left.run_id)
    assert "checksum does not match; the run starts anew" in caplog.text
    assert "checksum does not match" in Tracker(workspace).resolve(str(again.run_id)).tags["checkpoint.refused"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("experiment", [BASE, CLOSED], ids=["network", "closed form"])
@pytest.mark.parametrize("moment", ["final", "finish"])
def test_figures_of_a_run_that_is_ended_twice_are_recorded_once(
    moment: str, experiment: Experiment, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after its figures were sent, or before its end was: whoever ends it again adds no second point."""
    key = f"twice-{moment}-{experiment.model.kind}"
    original = getattr(Run, moment)

    def dying(self: Run, *words: Any, **more: Any) -> None:
        if moment == "final":
            original(self, *words, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, moment, dying)
        with pytest.raises(Killed):
            train(workspace, key, experiment)
    state = train(workspace, key, experiment)
    tracker = Tracker(workspace)
    run = tracker.resolve(str(state.run_id))
    points = {name: tracker.curve(run.run_id, name) for name in run.metrics}
    figures = [name for name in points if name.startswith(FIGURES)]
    assert {"final/seconds", "best/macro_f1", "last/macro_f1"} <= set(figures)
    assert {name: points[name] for name in figures if len(points[name]) != 1} == {}
    assert all(len({step for step, _ in points[name]}) == len(points[name]) for name in points)


# -- the parts ------------------------------------------------------------------------------------------------------------


def test_a_second_signal_ends_at_once() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with StopRequest() as stop:
            os.kill(os.getpid(), number)
            assert stop.reason() == number.name
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
    with StopRequest(parent=os.getppid()) as stop:  # the kernel and the supervisor may both send one
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason() == "SIGTERM"


def test_a_function_that_cannot_ask_gives_its_result_or_its_error() -> None:
    watch = Watch(StopRequest())
    assert watch.call("adding", lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        watch.call("dividing", lambda: 1 / 0)
    assert watch.stop is not None
    watch.stop.ask("SIGTERM")
    with pytest.raises(Abandoned, match=r"interrupted: SIGTERM \(features, 3 of 9\)"):
        watch.step("features", 3, 9)
    watch.step("evaluation", 3, 9, finish=True)  # there is time


def test_a_worker_tells_its_phase_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PHASE_FILE, raising=False)
    assert write_phase() is None
    monkeypatch.setenv(PHASE_FILE, str(tmp_path / "a.phase"))
    tell = write_phase()
    assert tell is not None
    tell("computing features", 3, 9)
    (tmp_path / "b.phase").write_text("evaluation 1/2")
    paths = [tmp_path / name for name in ("a.phase", "missing", "b.phase")]
    assert read_phases(paths) == "computing features 3/9, evaluation 1/2"
    tell("computing features", 9, 9)
    assert read_phases(paths) == "evaluation 1/2"


# -- as a user does it ----------------------------------------------------------------------------------------------------

SLOW = """
import time
from torch import nn
from audio_cls.experiment import Experiment
from audio_cls.components.features import LogMel


class Slow(LogMel, kind="slow_log_mel"):
    def build(self, sample_rate):
        inner = super().build(sample_rate)
        forward = inner.forward

        def slowly(x):
            time.sleep(0.5)
            return forward(x)

        inner.forward = slowly
        return inner
"""
EXPERIMENT = "EXPERIMENT = Experiment.parse({base!r}).override({{'features.kind': 'slow_log_mel'}})\n"
STUDY = """
from audio_cls.study import Study
STUDY = Study("slow", base=Experiment.parse({base!r}).override({{'features.kind': 'slow_log_mel'}}),
              space=lambda trial: {{"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2)}}, metric="val/macro_f1", direction="maximize")
"""


@pytest.fixture
def slow_features(tones_corpus: Path, tmp_path: Path) -> Path:
    """A workspace with files whose features take two seconds and more."""
    (tmp_path / "corpora").symlink_to(tones_corpus.parent)
    base = BASE.to_dict()
    (tmp_path / "train.py").write_text(SLOW + EXPERIMENT.format(base=base))
    (tmp_path / "study.py").write_text(SLOW + STUDY.format(base=base))
    return tmp_path


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("words", "number"),
    [(["train", "train.py"], signal.SIGTERM), (["study", "run", "study.py", "--trials", "1"], signal.SIGINT)],
    ids=["train", "study"],
)
def test_a_signal_while_features_are_computed(words: list[str], number: signal.Signals, slow_features: Path) -> None:
    """It is left at the next chunk, without waiting for the grace, and the same command goes on."""
    env = {**os.environ, "AUDIO_CLS_WORKSPACE": str(slow_features), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "audio_cls.cli", *words, "--grace", "500"]
    line = [str(slow_features / w) if w.endswith(".py") else w for w in line]
    process = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 200

    def computing() -> bool:
        if words[0] == "study":
            return any("computing features" in p.read_text() for p in slow_features.glob("logs/*/worker-0.phase"))
        return any(slow_features.glob("checkpoints/runs/*/claim.lock"))

    while not computing():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate(timeout=400)  # less than the grace
    assert process.returncode == 130, out
    assert "the same command goes on" in out
    assert "best: trial" not in out
    if words[0] == "train":
        [state] = [json.loads(p.read_text()) for p in slow_features.glob("checkpoints/runs/*/run.json")]
        assert state["state"] == "INTERRUPTED"
        assert "SIGTERM (computing features" in state["reason"]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
