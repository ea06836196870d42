"""Pruned trials taken up again: the same trial as one that was never pruned, told apart, and run alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from audio_cls.components.optim import Schedule
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.queue.places import trial_folder
from audio_cls.queue.status import study_status, summary
from audio_cls.runs.objective import Record, run_experiment
from audio_cls.runs.preparation import Runtime
from audio_cls.study.revive import larger_budget
from audio_cls.tracking import Tracker
from audio_cls.training.checkpoint import CheckpointStore, read
from tests.study_tones import Killed, Place


@pytest.fixture(scope="module")
def pruned(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Three configurations at a constant learning rate: a good one, then two that are pruned after two epochs."""
    place = Place(tmp_path_factory.mktemp("pruned") / "w", tones_corpus, schedule="constant")
    place.enqueue(1e-2, 1e-6, 2e-6)
    place.run(3)
    states = [t.state.name for t in place.study().trials]
    assert states == ["COMPLETE", "PRUNED", "PRUNED"]
    return place


@pytest.fixture
def place(pruned: Place, tmp_path: Path) -> Place:
    shutil.copytree(pruned.workspace.root, tmp_path / "w")
    return Place(tmp_path / "w", None)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors = dict(read(folder / "last.safetensors").tensors)
    best = read(folder / "last.safetensors").state["best_epoch"]
    return tensors | {f"best.{k}": v for k, v in read(folder / f"best-{best:04d}.safetensors").tensors.items()}


def history(folder: Path) -> list[dict[str, float]]:
    rows = read(folder / "last.safetensors").state["history"]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def never_pruned(place: Place, experiment: Experiment, folder: Path) -> Any:
    runtime = Runtime(place.workspace, Tracker(Workspace(folder / "other")), torch.device("cpu"))
    return run_experiment(experiment, runtime, Record("alone"), CheckpointStore(folder / "alone"))


@pytest.mark.parametrize("epochs", [None, 6])
def test_a_revived_trial_equals_one_never_pruned(place: Place, tmp_path: Path, epochs: int | None) -> None:
    """Weights, optimiser and curve, bit for bit; with a larger budget too, where the schedule does not depend on it."""
    before = place.study().trials[1]
    revival = place.revive(numbers=[1], epochs=epochs)
    assert revival.configs == (1,)
    place.run(3, only=revival.configs)
    trials = place.study().trials
    again = trials[3]
    assert (again.state.name, again.params, len(trials)) == ("COMPLETE", before.params, 4)
    assert again.user_attrs["revived"]
    assert again.user_attrs["resumed_from"] == 1

    own = Experiment.from_json(before.user_attrs["experiment"])
    experiment = own.override({"training.epochs": epochs}) if epochs else own
    assert Experiment.from_json(again.user_attrs["experiment"]) == experiment
    outcome = never_pruned(place, experiment, tmp_path)
    there = trial_folder(place.workspace, "tones", 1, 3)
    expected, found = weights(tmp_path / "alone"), weights(there)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert history(there) == history(tmp_path / "alone")
    assert len(history(there)) == (epochs or 4)
    assert again.value == outcome.value
    curve = [row["val/macro_f1"] for row in history(there)]
    assert again.intermediate_values == dict(enumerate(curve))

    tracker = Tracker(place.workspace)
    run = tracker.resolve(again.user_attrs["mlflow_run_id"])
    assert again.user_attrs["mlflow_run_id"] == before.user_attrs["mlflow_run_id"]
    assert (run.state, run.status, run.tags["revived"], run.tags["reason"]) == ("COMPLETE", "FINISHED", "true", "")
    assert run.tags["revived.at_epoch"] == str(len(before.intermediate_values))
    assert tracker.curve(run.run_id, "val/macro_f1") == list(enumerate(curve))
    assert Experiment.from_json(tracker.download(run.run_id, "experiment.json").read_text()) == experiment
    assert read(tracker.download(run.run_id, "weights/best.safetensors")).tensors
    assert run.tags.get("revived.epochs") == (f"{epochs} instead of 4" if epochs else None)
    assert len([r for r in tracker.runs() if r.tags["kind"] == "trial"]) == 3


def test_only_the_chosen_ones_run_and_the_total_stays(place: Place) -> None:
    study = place.study()
    study.set_user_attr("total", 20)
    place.queue().requeue(0, "again")  # something else waits in the queue
    place.run(3, only=place.revive(top=1).configs)
    states = {t.number: t.state.name for t in place.study().trials}
    assert states == {0: "COMPLETE", 1: "PRUNED", 2: "PRUNED", 3: "WAITING", 4: "COMPLETE"}
    assert place.study().user_attrs["total"] == 20


def test_the_same_request_again_changes_nothing_and_goes_on_when_killed(place: Place) -> None:
    first = place.revive(top=1)
    with pytest.raises(Killed):
        place.run(3, only=first.configs, stop_after=3)
    place.queue().tidy()
    again = place.revive(top=1)
    assert again.configs == first.configs
    assert "goes on" in again.lines[0]
    with pytest.raises(UserError, match="under way"):
        place.revive(top=1, epochs=9)
    place.run(3, only=again.configs)
    done = place.revive(top=1)
    assert done.configs == ()
    assert "revived before" in done.lines[0]
    assert "complete" in done.lines[0]
    newest = place.study().trials[-1]
    assert newest.state.name == "COMPLETE"
    assert sorted(newest.intermediate_values) == [0, 1, 2, 3]
    assert set(place.revive().configs) == {1, 2} - set(first.configs)


def test_status_says_what_pruning_would_have_lost(place: Place) -> None:
    place.run(3, only=place.revive().configs)
    study = place.study()
    status = study_status(study)
    assert (status.complete, status.pruned, status.revived, status.revived_complete) == (3, 0, 2, 2)
    kept = study.trials[0].value
    over = sum(t.value > kept for t in study.trials if t.user_attrs.get("revived"))
    assert status.overtook == over == 0
    assert (
        "2 pruned configurations revived; of 2 trained to the end, 0 overtook the best that was never pruned"
        in "\n".join(summary(status))
    )
    best = max((r for r in status.rows if r.revived), key=lambda r: r.value or 0.0)
    worse = dataclasses.replace(status, overtook=1, never_pruned_best=dataclasses.replace(status.rows[0], value=0.01))
    assert (
        f"1 overtook the best that was never pruned (0.01): pruning would have lost {best.value - 0.01:.4g}"
        in "\n".join(summary(worse))
    )


def test_the_sampler_sees_a_revived_trial_once(place: Place) -> None:
    from audio_cls.study.samplers import StudyView

    place.run(3, only=place.revive(numbers=[2]).configs)
    assert [t.number for t in StudyView(place.study()).trials] == [0, 1, 3]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"numbers": [0]}, ["trial 0 cannot be revived: it is complete", "Pruned trials: 1, 2", "Did you mean 1?"]),
        ({"numbers": [77]}, ["there are trials 0 to 2", "Did you mean 2?"]),
        ({"numbers": [1], "epochs": 2}, ["--epochs 2 is less than its budget of 4"]),
    ],
)
def test_what_cannot_be_revived_is_said(pruned: Place, wanted: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(UserError) as error:
        pruned.revive(**wanted)
    for words in said:
        assert words in str(error.value)
    assert len(pruned.study().trials) == 3


def test_no_checkpoint_left(place: Place) -> None:
    folder = trial_folder(place.workspace, "tones", 1, 1)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="no checkpoint is left") as error:
        place.revive(numbers=[2, 1])
    assert str(folder / "last.safetensors") in str(error.value)
    assert len(place.study().trials) == 3  # nothing was queued
    revival = place.revive()
    assert revival.configs == (2,)
    assert any("left out" in line for line in revival.lines)


def test_a_damaged_checkpoint_is_named(place: Place) -> None:
    path = trial_folder(place.workspace, "tones", 1, 1) / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="cut short or damaged"):
        place.revive(numbers=[1])


def test_nothing_pruned(tones_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trial was pruned"):
        Place(tmp_path / "w", tones_corpus).revive()


@pytest.mark.parametrize("kind", sorted(Schedule.members()))
def test_a_larger_budget_by_schedule(kind: str) -> None:
    """What a schedule says of itself is what its factor does: `same` means the same learning rates whatever the budget."""
    experiment = Experiment().override({"schedule.kind": kind, "training.epochs": 10})
    schedule = experiment.schedule
    rows = [{"val/loss": 1.0, "train/loss": 1.0}] * 10
    same = all(schedule.factor(e / 4, 10, rows) == schedule.factor(e / 4, 30, rows) for e in range(40))
    assert (schedule.longer == "same") == same
    if schedule.longer == "refused":
        with pytest.raises(UserError, match="cannot be prolonged"):
            larger_budget(experiment, 30, 5)
        assert larger_budget(experiment, 10, 5)[0] == experiment
    else:
        larger, note = larger_budget(experiment, 30, 5)
        assert larger.diff(experiment) == {"training.epochs": (30, 10)}
        assert ("learning rate 0.0005 -> 0.000933" in note) == (kind == "cosine")


def test_by_the_command_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    from audio_cls.cli import main

    assert (
        main(["--workspace", str(place.workspace.root), "study", "revive", "tones", "--trial", "2", "--device", "cpu"])
        == 0
    )
    out = capsys.readouterr().out
    assert "complete (revived)" in out
    assert "1 pruned configuration revived; of 1 trained to the end" in out
    assert (
        main(["--workspace", str(place.workspace.root), "study", "revive", "tones", "--top", "1", "--trial", "2"]) == 2
    )
    launch = json.loads(json.dumps(place.study().user_attrs["launch"]))
    assert launch["file"] == "tones.py"
