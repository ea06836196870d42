"""The `ablate`, `train --folds` and `study confirm` commands, as a user gives them: killed, taken up, extended, refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_cls.ablation.running import reopen_suite, results
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.runs.grid import RunState
from audio_cls.tracking import Tracker
from tests.ablation.test_ablation import ARMS, BASE, SMALL
from tests.commands import call, run

# -- from the command line --------------------------------------------------------------------------------------------

FILE = """
from audio_cls.ablation.declaration import Ablation
from audio_cls.experiment import Experiment
BASE = Experiment().override({small!r})
ABLATION = Ablation("lines", base=BASE, reference="plain", folds=(1, 2), seeds=(0,), arms={arms!r})
"""


def command(workspace: Path, *words: str, code: int | None = 0) -> str:
    done = run(workspace, *words, code=code)
    return done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_taken_up_and_extended(
    tones_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shutil.copytree(tones_corpus, tmp_path / "corpora" / "tones")
    file = tmp_path / "lines.py"
    file.write_text(FILE.format(small={**SMALL, "training.epochs": 16}, arms=ARMS))
    env = {**os.environ, "AUDIO_CLS_WORKSPACE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "audio_cls.cli", "ablate", "run", str(file), "--workers", "2"]

    def states() -> dict[str, Any]:
        return {p.parent.name: json.loads(p.read_text()) for p in tmp_path.glob("checkpoints/runs/*/run.json")}

    def epochs() -> int:
        return sum(s["epoch"] + 1 for s in states().values())

    for number in (signal.SIGKILL, signal.SIGINT):
        before, deadline = epochs(), time.monotonic() + 300
        with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                while epochs() < before + 6 and process.poll() is None:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                process.send_signal(number)
                out, _ = process.communicate(timeout=300)
            finally:
                process.kill()
        assert number == signal.SIGKILL or "the same command goes on" in out or "4 of 4 runs" in out, out
    halfway = {k: s["run_id"] for k, s in states().items()}
    out = command(tmp_path, "ablate", "run", str(file), "--workers", "2")
    after = states()
    assert len(after) == 4
    assert all(s["state"] == "COMPLETE" for s in after.values())
    assert all(after[k]["run_id"] == run_id for k, run_id in halfway.items())
    assert "lines: by arm: http://" in out
    assert (tmp_path / "reports" / "suite-lines.html").exists()

    command(tmp_path, "ablate", "run", str(file), "--workers", "2", "--seeds", "2")
    extended = states()
    assert len(extended) == 8
    assert {k: extended[k] for k in after} == after
    assert "8 of 8 runs" in call(capsys, tmp_path, "ablate", "report", "lines")
    assert "8 of 8 runs" in call(capsys, tmp_path, "ablate", "report", str(file))
    assert "complete: 8 of 8" in " ".join(call(capsys, tmp_path, "ablate", "list").split())
    runs = Tracker(Workspace(tmp_path)).runs()
    assert sorted(r.tags["kind"] for r in runs) == ["arm"] * 2 + ["cell"] * 8 + ["suite"]
    [arm] = [r for r in runs if r.name == "mixup"]
    assert arm.metrics["final/runs"] == 4
    assert arm.state == "COMPLETE"
    assert {"mean/macro_f1", "std/macro_f1", "final/macro_f1_difference", "final/macro_f1_low"} <= set(arm.metrics)

    other = tmp_path / "other.py"
    other.write_text(FILE.format(small={**SMALL, "training.epochs": 15}, arms=ARMS))
    assert "base.training.epochs: 16 -> 15" in call(capsys, tmp_path, "ablate", "run", str(other), code=2)
    changed = ("--set", "training.epochs=14")
    assert "base.training.epochs: 16 -> 14" in call(capsys, tmp_path, "ablate", "run", str(file), *changed, code=2)

    cells = sorted((r for r in runs if r.tags["kind"] == "cell" and r.tags["fold"] == "1"), key=lambda r: r.name)
    shown = call(capsys, tmp_path, "compare", cells[0].run_id, cells[2].run_id)
    assert "augment.mixup" in shown
    assert "paired bootstrap over 6 clips" in shown
    elsewhere = next(r for r in runs if r.tags.get("fold") == "2")
    assert "another split" in call(capsys, tmp_path, "compare", cells[0].run_id, elsewhere.run_id)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_arm_gets_the_same_search_first(tones_corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(tones_corpus, tmp_path / "corpora" / "tones")
    file = tmp_path / "lines.py"
    text = FILE.format(small=SMALL, arms=ARMS).replace("import Ablation", "import Ablation, Tune")
    space = 'lambda trial: {"optimizer.lr": trial.suggest_float("lr", 1e-3, 1e-1, log=True)}'
    file.write_text(text.replace("arms=", f"tune=Tune({space}, trials=3), arms="))
    assert "lines.mixup" in command(tmp_path, "ablate", "run", str(file))
    tuned = json.loads((tmp_path / "checkpoints" / "suites" / "lines.json").read_text())["tuned"]
    assert tuned.keys() == ARMS.keys()
    for state in tmp_path.glob("checkpoints/runs/lines.*/run.json"):
        arm = state.parent.name.split(".")[1]
        assert json.loads(state.read_text())["experiment"]["optimizer"]["lr"] == tuned[arm]["optimizer.lr"]
    from audio_cls.ablation.running import tuned as with_tuning

    suite = reopen_suite("lines", Workspace(tmp_path), Tracker(Workspace(tmp_path)))
    assert results(suite)[0].state == "complete: 4 of 4 runs"
    assert with_tuning(suite.ablation, suite.state).arm("mixup").optimizer.lr == tuned["mixup"]["optimizer.lr"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_folds_give_pooled_out_of_fold_predictions(tones_corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(tones_corpus, tmp_path / "corpora" / "tones")
    base = BASE.override({"data.split": "k_fold", "data.split.k": 3, "data.split.seed": 1})
    (tmp_path / "base.json").write_text(base.to_json())
    shown = command(tmp_path, "train", str(tmp_path / "base.json"), "--folds", "all", "--seeds", "2", "--name", "cv")
    assert "cv: 3 folds x 2 seeds = 6 runs" in shown.splitlines()
    assert "cv: by fold" in shown
    assert "out-of-fold" in shown
    tracker = Tracker(Workspace(tmp_path))
    [parent] = [r for r in tracker.runs() if r.name == "cv"]
    with open(tracker.download(parent.run_id, "predictions_oof.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    corpus = Corpus.open(tmp_path / "corpora" / "tones")
    assert sorted((r["seed"], r["clip"]) for r in rows) == sorted((s, c) for s in "01" for c in corpus.ids)
    with open(tracker.download(parent.run_id, "folds.csv"), newline="", encoding="utf-8") as file:
        by_fold = list(csv.DictReader(file))
    assert [(row["fold"], row["runs"]) for row in by_fold] == [("1", "2"), ("2", "2"), ("3", "2")]
    mean = np.mean([float(row["best/accuracy"]) for row in by_fold])
    assert parent.metrics["mean/best/accuracy"] == pytest.approx(mean, abs=1e-5)
    accuracy = np.mean([r["true"] == r["predicted"] for r in rows])
    assert parent.metrics["best/oof_accuracy"] == pytest.approx(accuracy)
    assert parent.metrics["last/oof_accuracy"] <= 1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_study_is_confirmed_on_fresh_seeds(tones_corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(tones_corpus, tmp_path / "corpora" / "tones")
    file = tmp_path / "study.py"
    file.write_text(
        "from audio_cls.experiment import Experiment\nfrom audio_cls.study import Study, NoPruning, RandomSearch\n"
        f"BASE = Experiment().override({SMALL!r})\n"
        'def space(trial):\n    return {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}\n'
        'STUDY = Study("s", base=BASE, space=space, sampler=RandomSearch(seed=1), pruner=NoPruning())\n'
    )
    command(tmp_path, "study", "run", str(file), "--trials", "3")
    shown = command(tmp_path, "study", "confirm", "s", "--top", "2", "--seeds", "2", "--folds", "1,2")
    assert "regression to the mean" in shown
    runs = Tracker(Workspace(tmp_path)).runs()
    fresh = [r for r in runs if r.tags["kind"] == "cell"]
    assert len(fresh) == 8
    assert {r.params["seed"] for r in fresh} == {"10000", "10001"}
    shown = command(tmp_path, "study", "confirm", "s", "--top", "1", "--seeds", "1", "--grace", "5")
    assert "mean of 1 configuration)" in shown


def test_an_interrupted_suite_leaves_without_its_report(
    tones_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tones_corpus, tmp_path / "corpora" / "tones")
    file = tmp_path / "lines.py"
    file.write_text(FILE.format(small=SMALL, arms=ARMS))
    states = [RunState(state=state) for state in ("COMPLETE", "INTERRUPTED", "COMPLETE", "NEW")]  # arms in turn
    monkeypatch.setattr("audio_cls.ablation.running.fill", lambda *_, **__: states)
    shown = call(capsys, tmp_path, "ablate", "run", str(file), code=130)
    assert "2 of 4 runs are left; the same command goes on with them" in shown
    assert "audio-cls ablate report lines" in shown
    assert not (tmp_path / "reports").exists()
    runs = {run.name: run.state for run in Tracker(Workspace(tmp_path)).runs()}
    assert runs == {"suite lines": "INTERRUPTED", "plain": "COMPLETE", "mixup": "INTERRUPTED"}
