"""A changed declaration: refused with the difference, or a new version with the trials that still count."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from audio_cls.core.errors import UserError
from audio_cls.core.loading import load_file
from audio_cls.queue.places import trial_folder
from audio_cls.queue.storage import IDENTITY, load_study, open_study, study_names
from audio_cls.study import search
from audio_cls.study.declaration import TRAINING
from audio_cls.study.opening import OpenedSearch, open_parts
from audio_cls.study.versions import newest_version, versions
from audio_cls.tracking import Tracker
from audio_cls.training.rules import FORMER, RULES
from tests.study_tones import Place


@pytest.fixture(scope="module")
def finished(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Place(tmp_path_factory.mktemp("finished") / "w", tones_corpus)
    place.enqueue(1e-2, 1e-6, 2e-2)
    place.run(3)
    assert [t.state.name for t in place.study().trials][:2] == ["COMPLETE", "PRUNED"]
    return place.workspace.root


class Changed(Place):
    """The workspace, its study's file rewritten; a file is loaded once per process, so that each text is a file of its own."""

    def change(self, *changes: tuple[str, str]) -> Changed:
        text = self.file.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.file = self.file.with_name(f"changed{len(list(self.file.parent.glob('*.py')))}.py")
        self.file.write_text(text)
        load_file(self.file)
        return self

    def open_new_version(self) -> OpenedSearch:
        return open_parts(self.workspace, self.launch, None, new_version=True)

    def new_version(self) -> Any:
        return self.open_new_version().opened


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Changed:
    shutil.copytree(finished, tmp_path / "w")
    return Changed(tmp_path / "w", None)


NARROWER = ("1e-6, 3e-2", "5e-7, 1.5e-2")


def test_a_change_is_refused_with_the_difference(place: Changed) -> None:
    place.change(NARROWER, ('"epochs": 4', '"epochs": 5'), ("seed=1", "seed=2"))
    with pytest.raises(UserError) as error:
        place.study()
    for said in (
        "base.training.epochs: 4 -> 5",
        "sampler.seed: 1 -> 2",
        "'lr', 1e-06, 0.03",
        "'lr', 5e-07, 0.015",
        "--new-version",
    ):
        assert said in str(error.value)


def test_another_corpus_and_other_metric_code_are_named(place: Changed) -> None:
    study = place.study()
    identity = study.user_attrs["audio_cls"]
    study.set_user_attr("audio_cls", {**identity, "data": "0" * 64, "metric_version": 0})
    with pytest.raises(UserError) as error:
        place.study()
    assert f"data: another corpus, or the same one prepared anew: digest {'0' * 12} -> {identity['data'][:12]}" in str(
        error.value
    )
    assert f"metric_version: 0 -> {identity['metric_version']}" in str(error.value)


def test_a_new_space_takes_what_lies_in_it(place: Changed) -> None:
    before = place.study().trials
    search = place.change(NARROWER).open_new_version()
    made, said = search.opened, "\n".join(search.said)
    assert made.study_name == "tones.v2"
    assert "study tones.v2: a new version of tones, with 2 of its trials carried over" in said
    assert "1 not carried over: lr lies outside the new space" in said
    trials = made.trials
    assert [(t.state, t.params, t.value, t.intermediate_values) for t in trials] == [
        (t.state, t.params, t.value, t.intermediate_values) for t in before[:2]
    ]
    assert [t.user_attrs["config"] for t in trials] == [0, 1]
    assert trials[0].user_attrs["carried_from"] == {"study": "tones", "trial": 0}
    assert all(t.distributions["lr"].high == 1.5e-2 for t in trials)

    place.run(4)  # the same file goes on with the version that it began
    assert len(load_study("tones.v2", place.storage).trials) == 4
    assert len(load_study("tones", place.storage).trials) == 3
    assert (place.new_version().study_name, versions("tones", place.storage)) == ("tones.v2", ["tones", "tones.v2"])
    tracker = Tracker(place.workspace)
    parents = {r.tags["study"]: r.run_id for r in tracker.runs() if r.tags["kind"] == "study"}
    fresh = load_study("tones.v2", place.storage).trials[3]
    assert tracker.resolve(fresh.user_attrs["mlflow_run_id"]).parent == parents["tones.v2"]
    assert fresh.user_attrs["config"] == 3


def test_undoing_the_change_goes_on_with_the_version_before(place: Changed) -> None:
    original = place.launch
    place.change(NARROWER).new_version()
    assert place.study(original).study_name == "tones"
    assert place.study().study_name == "tones.v2"
    assert newest_version("tones", place.storage) == "tones.v2"


def test_a_carried_pruned_trial_can_be_revived_in_a_run_of_its_own(place: Changed) -> None:
    place.change(NARROWER).new_version()
    assert trial_folder(place.workspace, "tones.v2", 1, 1).joinpath("last.safetensors").is_file()
    place.run(2, only=place.revive(numbers=[1]).configs)
    revived = load_study("tones.v2", place.storage).trials[2]
    assert revived.state.name == "COMPLETE"
    old = load_study("tones", place.storage).trials[1]
    assert revived.user_attrs["mlflow_run_id"] != old.user_attrs["mlflow_run_id"]
    tracker = Tracker(place.workspace)
    assert tracker.curve(revived.user_attrs["mlflow_run_id"], "val/macro_f1") == sorted(
        revived.intermediate_values.items()
    )
    assert tracker.resolve(old.user_attrs["mlflow_run_id"]).state == "PRUNED"


@pytest.mark.parametrize(
    ("change", "carried", "why"),
    [
        (("seed=1", "seed=2"), 3, ""),
        (("percentile=50.0", "percentile=60.0"), None, "pruned by a rule that is no longer the study's"),
        (('"epochs": 4', '"epochs": 5'), 0, "its experiment would be another one (training.epochs)"),
        (
            ('{"optimizer.lr": trial', '{"optimizer.weight_decay": 0.5, "optimizer.lr": trial'),
            0,
            "(optimizer.weight_decay)",
        ),
        (('suggest_float("lr"', 'suggest_float("rate"'), 0, "rate"),
        (("BASE = ", "import dataclasses\nBASE = "), None, None),
    ],
)
def test_what_is_carried_over(place: Changed, change: tuple[str, str], carried: int | None, why: str | None) -> None:  # fmt: skip
    search = place.change(change).open_new_version()
    made, said = search.opened, "\n".join(search.said)
    if why is None:  # no change at all: no version
        assert (made.study_name, said) == ("tones", "")
        return
    complete = sum(t.state.name == "COMPLETE" for t in load_study("tones", place.storage).trials)
    assert len(made.trials) == (complete if carried is None else carried)
    assert why in said


def test_a_name_that_is_taken_is_passed_over(place: Changed) -> None:
    study = open_parts(place.workspace, place.launch, None).study
    open_study(dataclasses.replace(study, name="tones.v2"), place.storage)
    assert place.change(NARROWER).new_version().study_name == "tones.v3"
    assert study_names(place.storage) == ["tones", "tones.v2", "tones.v3"]


def forget_training_rules(place: Place) -> None:
    """Make the study one that began before training rules had versions."""
    study = load_study("tones", place.storage)
    identity = {k: v for k, v in study.user_attrs[IDENTITY].items() if k != TRAINING}
    study.set_user_attr(IDENTITY, identity)


def test_a_study_of_the_former_training_rules_goes_on_by_them(place: Changed) -> None:
    now = open_parts(place.workspace, place.launch, None)
    assert now.study.settled is not None
    assert (now.study.settled.training, now.opened.user_attrs[IDENTITY][TRAINING]) == (RULES, RULES)
    forget_training_rules(place)
    former = open_parts(place.workspace, place.launch, None)
    assert former.study.settled is not None
    assert former.study.settled.training == FORMER
    assert TRAINING not in load_study("tones", place.storage).user_attrs[IDENTITY]


def test_trials_that_the_training_rules_changed_are_not_carried_over(
    place: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_training_rules(place)
    monkeypatch.setattr(search, "corrections", lambda experiment, n_train, rules: "EMA warm-up" if rules else "")
    made = place.open_new_version()  # nothing else has changed
    assert "  training rules: 0 -> 1: EMA warm-up" in made.said
    assert "not carried over: trained by former rules (now corrected: EMA warm-up)" in "\n".join(made.said)
    assert made.opened.user_attrs[IDENTITY][TRAINING] == RULES
    assert made.opened.trials == []
