"""Studies and suites that a program declares and runs: in this process, by workers, from a script without a guard, again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import audio_cls as ac
from tests.commands import call, run

SCRIPT = """
import audio_cls as ac
from torch import nn

class Own(ac.Model, kind="own_script_model"):
    input_domains = ("spectrogram",)

    def build(self, input_shape, n_classes):
        return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, n_classes))

BASE = ac.Experiment().override({**SETTINGS, "model": "own_script_model"})
first = ac.train(BASE, name="first", progress=False)
print("trained", first.state)

def space(trial):
    return {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}

def main():
    sampler = ac.RandomSearch(seed=3)
    return ac.Study("scripted", base=BASE, space=space, sampler=sampler).run(trials=3, workers=2, progress=False)

found = main()
print("finished", found.status.finished, "best", found.best_value)
"""


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {
        "data.corpus": "tones",
        "data.clip_seconds": 0.5,
        "features.n_fft": 256,
        "features.n_mels": 16,
        "training.epochs": 1,
        "training.precision": "fp32",
    }


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("programs")
    (root / "corpora").mkdir()
    (root / "corpora" / "tones").symlink_to(tones_corpus)
    return root


def space(trial: Any) -> dict[str, Any]:
    return {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}


def test_a_study_runs_here_and_goes_on(
    workspace: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    base = ac.Experiment().override(settings)
    study = ac.Study("here", base=base, space=space, sampler=ac.RandomSearch(seed=1))
    one = study.run(1, workspace=workspace, progress=False)
    assert one.status.finished == 1
    two = study.run(2, workspace=workspace)
    assert "configurations" in capsys.readouterr().out
    assert [row.config for row in sorted(two.status.rows, key=lambda r: r.number)] == [0, 1]
    assert two.table()["run"].isin([r.id[:8] for r in ac.list_runs("tags.kind = 'trial'", workspace=workspace)]).all()
    assert two.best.metrics["macro_f1"] == pytest.approx(two.best_value)
    assert two.figure("history").data
    assert "<td>COMPLETE</td>" in two._repr_html_()
    assert two.page is not None
    assert two.page.exists()
    with pytest.raises(ac.UserError, match=r"no figure 'histroy'.*Did you mean 'history'"):
        two.figure("histroy")
    assert "here" in call(capsys, workspace, "study", "status", "here")


def test_workers_are_refused_a_space_that_they_cannot_find(workspace: Path, settings: dict[str, Any]) -> None:
    base = ac.Experiment().override(settings)
    study = ac.Study("hidden", base=base, space=lambda trial: {}, sampler=ac.RandomSearch(seed=1))
    with pytest.raises(ac.UserError, match=r"not defined at the top level of its file.*or take workers=1"):
        study.run(2, workers=2, workspace=workspace)


@pytest.mark.slow
def test_an_ablation_is_judged_and_shows_itself(
    workspace: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    base = ac.Experiment().override(settings)
    suite = ac.Ablation(
        "pace",
        base=base,
        reference="plain",
        arms={"plain": {}, "slow": {"optimizer.lr": 1e-5}},
        seeds=[0],
        folds=[1, 2],
    )
    found = suite.run(workspace=workspace, progress=False)
    table = found.table()
    assert list(table.index) == ["plain", "slow"]
    assert table.loc["plain", "verdict"] == "the reference"
    assert table.loc["slow", "difference"] == pytest.approx(table["mean"]["slow"] - table["mean"]["plain"])
    assert set(found.verdicts) == {"slow"}
    assert found.figure("forest").data
    assert {"runs", "curves"} <= set(found.figures())
    assert "slow" in found._repr_html_()
    assert found.page is not None
    runs = {r.id for r in ac.list_runs("tags.kind = 'cell'", workspace=workspace)}
    assert len(runs) == 4
    again = suite.run(workspace=workspace, progress=False)
    assert {r.id for r in ac.list_runs("tags.kind = 'cell'", workspace=workspace)} == runs
    assert again.table().equals(table)
    assert suite.result(workspace=workspace).state == found.state
    assert "pace" in call(capsys, workspace, "ablate", "report", "pace")
    with pytest.raises(ac.UserError, match=r"no figure 'forrest'.*Did you mean 'forest'"):
        found.figure("forrest")


@pytest.mark.long
def test_folds_and_seeds_in_one_call(workspace: Path, settings: dict[str, Any]) -> None:
    base = ac.Experiment().override({**settings, "seed": 11})
    found = ac.cross_validate(base, folds="1,2", workspace=workspace, progress=False)
    values = [state.record.metrics["accuracy"] for state in found.complete]
    assert len(values) == 2
    assert found.table()["mean"]["best/accuracy"] == pytest.approx(sum(values) / 2)


@pytest.mark.long
def test_a_script_without_a_guard_runs_a_study_on_workers(workspace: Path, settings: dict[str, Any]) -> None:
    """The workers load the script for its space and its model; none of them starts it again. The same command line goes on."""
    script = workspace / "mine.py"
    script.write_text(SCRIPT.replace("SETTINGS", repr(settings)), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=workspace, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("finished 3") == 1
    trials = ac.list_runs("tags.kind = 'trial' and tags.study = 'scripted'", workspace=workspace)
    assert [r.state for r in trials] == ["COMPLETE"] * 3
    assert len(ac.list_runs("tags.kind = 'run'", workspace=workspace)) == 1
    more = run(workspace, "study", "run", "scripted", "--trials", "4")
    assert "4" in more.stdout
    assert len(ac.list_runs("tags.kind = 'trial' and tags.study = 'scripted'", workspace=workspace)) == 4
