"""The public Python face: light, typed, the same as the command line, its examples true."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import audio_cls as ac
from audio_cls.core.workspace import Workspace
from audio_cls.tracking import Tracker
from audio_cls.tracking.registry import logged_model_id
from tests.commands import call

ROOT = Path(ac.__file__).parent
SMALL = {
    "data.corpus": "sounds",
    "data.clip_seconds": 0.5,
    "features.n_fft": 256,
    "features.hop_length": 256,
    "features.n_mels": 16,
    "training.epochs": 2,
    "training.batch_size": 12,
    "training.precision": "fp32",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a corpus `sounds`, made as a script makes one."""
    root = tmp_path_factory.mktemp("face")
    folder = ac.generate(root / "wav", n_clips=30, clip_seconds=0.5, classes=("rain", "siren"), imbalance=1, workers=1)
    ac.prepare(folder, name="sounds", workspace=root, workers=1, progress=False)
    return root


@pytest.fixture
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace)
    return workspace


@pytest.fixture(scope="module")
def base() -> Any:
    return ac.Experiment().override(SMALL)


@pytest.fixture(scope="module")
def run(workspace: Path, base: Any) -> Any:
    return ac.train(base, name="small", workspace=workspace, progress=False)


def space(trial: optuna.Trial) -> dict[str, Any]:
    return {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}


# -- the names ------------------------------------------------------------------------------------------------------


def test_import_loads_nothing_heavy() -> None:
    code = "import audio_cls, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))
    assert not loaded & {"torch", "optuna", "mlflow", "pandas", "numpy", "pydantic", "plotly", "rich", "click", "scipy"}
    assert {n for n in loaded if n.startswith("audio_cls")} == {"audio_cls", "audio_cls.core", "audio_cls.core.lazy"}


def test_every_name_is_there_and_typed() -> None:
    assert {"Experiment", "Study", "Ablation", "Model", "UserError", "train", "objective"} <= set(ac.__all__)
    assert set(ac.__all__) <= set(dir(ac))
    for name in ac.__all__:
        assert getattr(ac, name).__module__.startswith("audio_cls.")
    assert (ROOT / "py.typed").exists()


def test_no_name_of_the_face_is_a_room() -> None:
    """A room takes the name when it is imported, and would hide a function of that name."""
    rooms = {path.stem for path in ROOT.iterdir()}
    assert not rooms & set(ac.__all__)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Modle'"):
        _ = ac.Modle


# -- its examples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    [
        "data.making",
        "inference.handle",
        "study.plain",
        "study.handle",
        pytest.param("ablation.handle", marks=pytest.mark.slow),
    ],
)
def test_the_examples_of_the_docstrings_run(module: str, here: Path) -> None:
    found = doctest.testmod(importlib.import_module(f"audio_cls.{module}"), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 2
    assert not found.failed


# -- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_has_its_figures(run: Any, workspace: Path, base: Any) -> None:
    assert run.state == "COMPLETE"
    assert 0 <= run.metrics["macro_f1"] <= 1
    assert run.metrics.keys() == run.last.keys()
    assert list(run.history.index) == [1, 2]
    assert run.history["val/macro_f1"].max() == pytest.approx(run.metrics["macro_f1"])
    assert run.experiment.override({"data.corpus": "sounds"}).optimizer == base.optimizer
    assert run.predictions.scores.shape == (len(run.predictions.clips), 2)
    assert list(run.table().columns) == ["best epoch", "last epoch", "baseline"]
    assert f"{run.metrics['macro_f1']:.4f}" in run._repr_html_()
    assert run.id[:8] in repr(run)
    assert run.parameters == int(run.info.metrics["final/parameters"]) > 0
    assert f"{run.parameters:,} parameters" in run._repr_html_()


def test_a_run_has_the_figures_of_its_page(run: Any) -> None:
    assert {"confusion", "roc", "curves_loss"} <= set(run.figures())
    counts = run.figure("confusion").data[0]
    assert counts.type == "heatmap"
    with pytest.raises(ac.UserError, match="Did you mean 'confusion'"):
        run.figure("confusoin")


def test_a_run_writes_its_page_and_is_evaluated(run: Any, workspace: Path, tmp_path: Path) -> None:
    assert "mistakes" in run.report(tmp_path / "page.html").read_text(encoding="utf-8").lower()
    assert run.evaluate().predictions.evaluation.overall == run.predictions.evaluation.overall
    opened = run.evaluate(test=True)
    assert opened.figures["accuracy"].low <= opened.figures["accuracy"].estimate <= opened.figures["accuracy"].high
    with pytest.raises(ac.UserError, match="again"):
        run.evaluate(test=True)


def test_runs_are_compared_and_averaged(
    run: Any, workspace: Path, base: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = base.override({"optimizer.lr": 1e-4, "schedule": {"kind": "cosine_restarts", "cycles": 2}})
    other = ac.train(changed, name="cautious", workspace=workspace, log_model=False, progress=False)
    tracker = Tracker(Workspace(workspace))
    assert [logged_model_id(tracker, r.id) is not None for r in (run, other)] == [True, False]
    found = ac.compare(run, "cautious", workspace=workspace)
    assert found.table().loc["optimizer.lr"].to_list()[:2] == ["0.001", "0.0001"]
    pair = found.paired_table().loc[f"cautious ({other.id[:8]})", "accuracy"]
    assert pair["difference"] == pytest.approx(pair["value"] - pair["first"])
    assert "optimizer.lr" in found._repr_html_()
    with pytest.raises(ac.UserError, match="two runs or more"):
        ac.compare(run, workspace=workspace)
    averaged = ac.ensemble(run, "cautious", workspace=workspace, weights="best")
    assert averaged.n_members == 2
    order = np.argsort(run.predictions.rows)
    expected = (run.predictions.scores[order] + other.predictions.scores[order]) / 2
    assert averaged.predictions.scores == pytest.approx(expected)
    assert averaged.single["accuracy"] == pytest.approx((run.metrics["accuracy"] + other.metrics["accuracy"]) / 2)
    shown = call(capsys, workspace, "compare", "--average", "--weights", "best", run.id, "cautious")
    assert f"{averaged.figures['accuracy'].estimate:.4f}"[:5] in shown
    assert "2 models for each of" in shown
    with pytest.raises(ac.UserError, match="no validation clip in common"):
        ac.ensemble(run, workspace=workspace)

    snapshots = ac.ensemble("cautious", workspace=workspace, snapshots="all")
    assert (snapshots.n_members, snapshots.snapshots, len(snapshots.runs)) == (2, 2, 1)
    for name in ("accuracy", "nll"):  # both epochs end a cycle
        curve = other.history[f"val/{name}"]
        assert snapshots.single[name] == pytest.approx(curve.mean())
        assert snapshots.last[name] == pytest.approx(curve.iloc[-1]) == pytest.approx(other.last[name])
    assert snapshots.figures["nll"].estimate <= snapshots.single["nll"]  # the logarithm is concave
    shown = call(capsys, workspace, "compare", "--average", "cautious", "--snapshots", "2")
    assert "a snapshot ensemble of 2 snapshots of one run" in shown
    assert f"{snapshots.figures['nll'].estimate:.4g}" in shown
    for words, said in (
        (["--average", "cautious", "--snapshots", "3"], "has 2 snapshots, and 3 of each run are asked for"),
        (["--average", "cautious", "--snapshots", "1"], "takes two snapshots or more of each run, found 1"),
        (
            ["--average", run.id, "--snapshots", "all"],
            "trained with schedule.kind=cosine. schedule=cosine_restarts keeps",
        ),
        (["--average", "cautious", "--snapshots", "all", "--weights", "best"], "leave out --weights best"),
        (["cautious", "--snapshots", "all"], "goes with --average"),
        (["--average", "cautious", "--snapshots", "many"], "neither a number of snapshots nor all"),
    ):
        assert said in " ".join(call(capsys, workspace, "compare", *words, code=2).split())


def test_a_run_labels_audio(run: Any, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((workspace / "wav" / "audio").glob("*.wav"))[:2]
    label = run.predict(files[0])
    assert set(label) == {"rain", "siren"}
    assert sum(label.values()) == pytest.approx(1)
    both = run.predict(files, top=1)
    assert list(both) == files
    assert both[files[0]] == pytest.approx(dict(list(label.items())[:1]))  # of another batch: the last digits differ
    said = json.loads(call(capsys, workspace, "predict", run.id, str(files[0]), "--json").splitlines()[0])
    assert said["labels"] == pytest.approx(label)
    with pytest.raises(ac.UserError, match=r"nowhere\.wav: "):
        run.predict("nowhere.wav")


def test_the_same_experiment_is_trained_once(run: Any, workspace: Path, base: Any) -> None:
    assert ac.train(base, workspace=workspace, progress=False).id == run.id
    assert ac.open_run(run.id[:8], workspace=workspace).id == run.id
    assert run.id in {found.id for found in ac.list_runs("tags.kind = 'run'", workspace=workspace)}
    again = ac.train(base, workspace=workspace, again=True, progress=False)
    assert again.id != run.id
    assert again.last == run.last


def test_the_command_line_finds_what_python_trained(
    run: Any, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    assert "It was trained before" in call(capsys, workspace, "train", *words)


def test_training_shows_lines_only_when_asked(workspace: Path, base: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ac.train(base.override({"seed": 8}), workspace=workspace, progress=False)
    assert capsys.readouterr() == ("", "")
    ac.train(base.override({"seed": 9}), workspace=workspace)
    assert "2/2 epochs, val/macro_f1" in capsys.readouterr().out


def test_failures_are_errors_and_recorded(workspace: Path, base: Any) -> None:
    with pytest.raises(ac.UserError, match=r"no corpus 'sound'.*Did you mean 'sounds'"):
        ac.train(base.override({"data.corpus": "sound"}), workspace=workspace, progress=False)
    with pytest.raises(ac.RunFailed, match="diverged") as failed:
        ac.train(base.override({"optimizer.lr": 1e30}), workspace=workspace, progress=False)
    assert ac.open_run(failed.value.run_id, workspace=workspace).state == "FAILED"


# -- plain Optuna ------------------------------------------------------------------------------------------------------


class FirstEpochs(optuna.pruners.BasePruner):
    """Prunes the second trial after its first epoch."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number == 1


def test_a_plain_study_is_tracked_and_prunes(workspace: Path, base: Any) -> None:
    seen: list[int] = []
    study = optuna.create_study(
        study_name="plain", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0), pruner=FirstEpochs()
    )
    study.optimize(
        ac.objective(base, space, workspace=workspace), n_trials=2, callbacks=[lambda _, t: seen.append(t.number)]
    )
    assert seen == [0, 1]
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED"]
    assert [len(t.intermediate_values) for t in study.trials] == [2, 1]
    runs = [ac.open_run(t.user_attrs["mlflow_run_id"], workspace=workspace) for t in study.trials]
    assert [r.state for r in runs] == ["COMPLETE", "PRUNED"]
    assert {r.info.parent for r in runs} == {study.user_attrs["mlflow_run_id"]}
    parent = ac.open_run(study.user_attrs["mlflow_run_id"], workspace=workspace)
    assert parent.metrics["macro_f1"] == pytest.approx(study.best_value)
    assert runs[0].experiment.optimizer.lr == study.trials[0].params["lr"]


def test_a_study_of_the_other_direction_is_refused(workspace: Path, base: Any) -> None:
    study = optuna.create_study(direction="minimize")
    with pytest.raises(ac.UserError, match=r"better when it is larger.*create_study\(direction='maximize'\)"):
        study.optimize(ac.objective(base, space, workspace=workspace), n_trials=1)
    with pytest.raises(ac.UserError, match="base must be an Experiment, found dict"):
        ac.objective({}, space)  # type: ignore[arg-type]


def test_a_failed_configuration_follows_optunas_rules(workspace: Path, base: Any) -> None:
    def wild(trial: optuna.Trial) -> dict[str, Any]:
        return {"optimizer.lr": trial.suggest_categorical("lr", [1e30])}

    study = optuna.create_study(study_name="wild", direction="maximize")
    found = ac.objective(base, wild, workspace=workspace)
    with pytest.raises(ac.RunFailed, match="diverged"):
        study.optimize(found, n_trials=1)
    study.optimize(found, n_trials=1, catch=(ac.RunFailed,))
    assert [t.state.name for t in study.trials] == ["FAIL", "FAIL"]
    assert study.trials[1].user_attrs["reason"].startswith("diverged")


def test_an_interrupted_trial_goes_on_from_its_checkpoint(workspace: Path, base: Any) -> None:
    """Ctrl-C after the first epoch; the same parameters, enqueued again, train the second epoch only, bit for bit."""

    class Interrupting(optuna.pruners.BasePruner):
        armed = True

        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            if self.armed:
                self.armed = False
                os.kill(os.getpid(), 2)
            return False

    def train(study: optuna.Study, seed: int, n: int) -> None:
        study.optimize(ac.objective(base.override({"seed": seed}), space, workspace=workspace), n_trials=n)

    study = optuna.create_study(
        study_name="stopped", storage=f"sqlite:///{workspace}/plain.db", direction="maximize", pruner=Interrupting()
    )
    study.enqueue_trial({"lr": 1e-3})
    with pytest.raises(KeyboardInterrupt, match="goes on from its checkpoint"):
        train(study, 5, 1)
    assert study.trials[0].state.name == "FAIL"
    first = ac.open_run(study.trials[0].user_attrs["mlflow_run_id"], workspace=workspace)
    assert first.state == "INTERRUPTED"
    study.enqueue_trial({"lr": 1e-3})
    train(study, 5, 1)
    resumed = ac.open_run(study.trials[1].user_attrs["mlflow_run_id"], workspace=workspace)
    whole = ac.train(base.override({"seed": 5, "optimizer.lr": 1e-3}), workspace=workspace, progress=False)
    assert resumed.last == whole.last
    assert list(resumed.history.index) == [1, 2]
    assert list(first.history.index) == [1]
    assert resumed.history["time/train_seconds"][1] == first.history["time/train_seconds"][1]  # not trained again
