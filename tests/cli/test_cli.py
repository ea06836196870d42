"""The commands as a user types them: what they print, what they refuse, and that nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import call, run
from tests.conftest import write_tones
from tests.own_parts import command

SMALL = ["--set", "data.corpus=tones", "--set", "data.sample_rate=8000", "--set", "data.clip_seconds=1", "--set", "features.n_fft=256",
         "--set", "features.hop_length=128", "--set", "features.n_mels=32", "--set", "training.batch_size=8"]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    shutil.copytree(tones_corpus, root / "corpora" / "tones")
    return root


@pytest.fixture(scope="module")
def trained(workspace: Path) -> str:
    """The id of a run of four epochs."""
    out = run(
        workspace, "train", *SMALL, "--set", "training.epochs=4", "--set", "optimizer.lr=0.01", "--name", "first"
    ).stdout
    return next(line.split()[1].rstrip(".") for line in out.splitlines() if line.startswith("run "))


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom audio_cls.cli import main\n"
        "main(['--help']); main(['study', 'run', '--help']); main(['train', '--help'])\n"
        "heavy = {'torch', 'mlflow', 'optuna', 'sklearn', 'plotly', 'numpy', 'pydantic', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stady"], ["no command 'stady'", "Did you mean 'study'"]),
        (["study", "stats"], ["Did you mean 'status'"]),
        (["train", "--set", "data.corpus=tonez"], ["no corpus 'tonez'", "Did you mean 'tones'", "data prepare"]),
        (["train", "--set", "optimizer.lrr=1"], ["no key 'optimizer.lrr'", "Did you mean 'optimizer.lr'"]),
        (["train", "--set", "optimizer.lr"], ["expected key=value"]),
        (["train", *SMALL, "--set", "model=small_cn"], ["'small_cn' is no model", "Did you mean 'small_cnn'"]),
        (["train", *SMALL, "--set", "features=mfcc_statistics"], ["small_cnn takes spectrogram", "gives embedding"]),
        (["train", *SMALL, "--set", "training.metric=val/f1"], ["macro_f1"]),
        (["train", *SMALL, "--set", "data.split.test_fold=9"], ["9"]),
        (["train", *SMALL, "--set", "data.sample_rate=16000"], ["packed at 8000 Hz"]),
        (["train", *SMALL, "--folds", "1,7"], ["no fold '7'", "1, 2, 3, 4, 5"]),
        (["train", "nowhere.py"], ["no file 'nowhere.py'"]),
        (["study", "run", "nowhere.py", "--trials", "3"], ["no file 'nowhere.py'"]),
        (["data", "prepare", "nowhere", "--name", "x"], ["nowhere"]),
        (["evaluate", "no-such-run"], ["no-such-run"]),
    ],
    ids=lambda w: " ".join(w)[-40:] if isinstance(w, list) else "",
)
def test_a_mistake_is_one_message_and_exit_code_2(
    workspace: Path,
    words: list[str],
    said: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    shown = call(capsys, workspace, *words, code=2)
    for word in said:
        assert word in shown
    assert "Traceback" not in shown


def test_a_folder_without_corpora_names_the_option_for_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, tmp_path, "train", "--set", "data.corpus=tones", code=2)
    assert "holds none. Make one with: audio-cls data prepare SOURCE --name tones" in shown.replace("\n", " ")
    assert "--workspace DIR" in shown


def test_a_mistake_as_a_process(workspace: Path) -> None:
    done = run(workspace, "train", "--set", "optimizer.lrr=1", code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_train_evaluate_predict(
    workspace: Path, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, workspace, "evaluate", trained[:8])
    assert "validation" in shown
    states = [json.loads(path.read_text()) for path in (workspace / "checkpoints" / "runs").glob("*/run.json")]
    accuracy = next(state["metrics"]["accuracy"] for state in states if state["run_id"] == trained)
    assert f"{accuracy:.4g}" in next(line for line in shown.splitlines() if "accuracy" in line)
    write_tones(tmp_path / "tones", n_per_class=1)
    lines = run(workspace, "predict", "first", str(tmp_path / "tones" / "audio"), "--json").stdout.splitlines()
    labels = {Path(r["path"]).stem: max(r["labels"], key=r["labels"].get) for r in map(json.loads, lines)}
    assert labels.keys() == {"hum0", "hiss0", "beep0"}
    assert sum(label in stem for stem, label in labels.items()) >= 2


def test_the_same_run_is_not_trained_twice(workspace: Path, trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *SMALL, "--set", "training.epochs=4", "--set", "optimizer.lr=0.01", "--name", "first"]
    again = command(capsys, workspace, *words)
    assert trained in again
    assert "--again" in again


def test_the_test_split_opens_once_unless_asked_again(
    workspace: Path, trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "opened 1 time" in call(capsys, workspace, "evaluate", trained, "--test")
    assert "opened before" in call(capsys, workspace, "evaluate", trained, "--test", code=2)
    assert "opened 2 time" in call(capsys, workspace, "evaluate", trained, "--test", "--again")


def test_interrupted_training_goes_on(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *SMALL, "--set", "training.epochs=60", "--set", "model.widths=[8,8]", "--name", "long"]
    env = {**os.environ, "AUDIO_CLS_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "audio_cls.cli", *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (
        found := [
            p
            for p in (workspace / "checkpoints" / "runs").glob("*/run.json")
            if json.loads(p.read_text())["epoch"] > 3 and json.loads(p.read_text())["state"] == "RUNNING"
        ]
    ):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "the same command goes on" in out
    state = json.loads(found[0].read_text())
    assert state["state"] == "INTERRUPTED"
    assert "going on after epoch" in command(capsys, workspace, *words)
    after = json.loads(found[0].read_text())
    assert (after["state"], after["run_id"]) == ("COMPLETE", state["run_id"])


@pytest.mark.slow
def test_folds_and_seeds_below_one_parent(workspace: Path) -> None:
    words = [
        "train",
        *SMALL,
        "--set",
        "training.epochs=2",
        "--folds",
        "2,5",
        "--seeds",
        "2",
        "--workers",
        "2",
        "--name",
        "cv",
    ]
    shown = run(workspace, *words).stdout
    assert "4 of 4 runs" in shown
    from audio_cls.core.workspace import Workspace
    from audio_cls.tracking import Tracker

    runs = Tracker(Workspace(workspace)).runs()
    parent = next(r for r in runs if r.name == "cv")
    children = [r for r in runs if r.tags.get("mlflow.parentRunId") == parent.run_id]
    assert len(children) == 4
    assert {(r.tags["fold"], r.tags["seed"]) for r in children} == {(str(f), str(s)) for f in (2, 5) for s in range(2)}
    mean = sum(r.metrics["best/accuracy"] for r in children) / 4
    assert parent.metrics["mean/best/accuracy"] == pytest.approx(mean)


def test_keys_are_a_line_each_in_a_pipe_and_folded_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    piped = call(capsys, tmp_path, "keys").splitlines()
    assert all(len(line.split("\t")) == 5 and line.split("\t")[4] for line in piped)
    assert max(map(len, piped)) > 120, "nothing is folded"
    [row] = [line for line in piped if line.startswith("model.kind\tsmall_cnn\t")]
    assert "24,170 parameters" in row
    assert row.endswith("Takes: spectrogram, image, sequence.")
    assert "model.widths\tsmall_cnn\t16,32,64\tint > 0, ...\tChannels of each block." in piped
    assert all(line.startswith("optimizer.") for line in call(capsys, tmp_path, "keys", "optimizer").splitlines())

    monkeypatch.setattr("audio_cls.cli.console.console", lambda: Console(force_terminal=True, width=80))
    shown = call(capsys, tmp_path, "keys").splitlines()
    assert max(map(len, shown)) <= 80
    assert {line.split("\t")[0] for line in piped} == {line.partition("=")[0] for line in shown if line[0] != " "}
