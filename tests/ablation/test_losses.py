"""Arms and trials that change the loss are not judged by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from audio_cls.ablation.contract import check_plan
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.losses import check_losses, follows_own_loss, loss_caveat
from audio_cls.ablation.stored import SuiteState, join_suite
from audio_cls.ablation.suite import open_suite
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment
from audio_cls.queue.options import QueueOptions
from audio_cls.runs.loss_settings import loss_remark, other_losses
from audio_cls.study.declaration import Study
from audio_cls.study.losses import check_losses as check_study_losses
from audio_cls.study.plain import objective
from audio_cls.tracking import Tracker

BASE = Experiment.parse({"data": {"corpus": "tones"}, "training": {"epochs": 1, "metric": "val/loss"}})
FOCAL: dict[str, Any] = {"loss": {"kind": "focal"}}


def suite(arms: dict[str, dict[str, Any]], **more: Any) -> Ablation:
    given: dict[str, Any] = {"metric": ("val/macro_f1", "val/loss"), "folds": (1,), "seeds": (0,)}
    return Ablation("losses", base=BASE, reference="plain", arms={"plain": {}, **arms}, **{**given, **more})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (FOCAL, "loss.kind"),
        (
            {"loss": {"kind": "focal", "gamma": 0.0}},
            "loss.kind",
        ),  # the same function: settings are compared, not values
        ({"loss.label_smoothing": 0.1}, "loss.label_smoothing"),
        ({"loss.class_weights": "inverse"}, "loss.class_weights"),
        ({"loss.class_weights": "effective", "loss.effective_beta": 0.9}, "loss.effective_beta"),
        ({"loss.prior_bias": True}, ""),  # another start, the same loss
        ({"loss.effective_beta": 0.9}, ""),  # without effect
        ({"optimizer.lr": 1e-4}, ""),
    ],
)
def test_a_suite_of_several_losses_is_not_judged_by_them(changes: dict[str, Any], key: str) -> None:
    declared = suite({"other": changes})
    if not key:
        check_losses(declared, None)
        assert loss_caveat(declared, "val/loss", "other") == ""
        return
    with pytest.raises(UserError) as error:
        check_losses(declared, None)
    assert "metric='val/loss' is each arm's own loss" in str(error.value)
    assert key in str(error.value)
    assert "val/nll" in str(error.value)
    assert key in loss_caveat(declared, "val/loss", "other")
    assert loss_caveat(declared, "val/nll", "other") == ""
    check_losses(replace(declared, metric=("val/macro_f1", "val/nll")), None)


def test_it_is_refused_before_anything_is_made(tones_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "corpora").symlink_to(tones_corpus.parent)
    with pytest.raises(UserError, match=r"loss.kind: cross_entropy in plain, focal in other"):
        open_suite(suite({"other": FOCAL}), Tracker(Workspace(tmp_path)), QueueOptions(device="cpu"))
    assert [path.name for path in tmp_path.iterdir()] == ["corpora"]


def test_a_suite_that_was_judged_so_before_goes_on_and_says_it(tones_corpus: Path) -> None:
    corpus = Corpus.open(tones_corpus)
    old = join_suite(suite({"focal": FOCAL}), None, corpus, None)
    check_losses(suite({"focal": FOCAL, "more": {"loss": "bce"}}), old)
    sound = join_suite(suite({"slow": {"optimizer.lr": 1e-4}}), None, corpus, None)
    with pytest.raises(UserError, match="measured with different rulers"):
        check_losses(suite({"slow": {"optimizer.lr": 1e-4}, "focal": FOCAL}), sound)
    assert isinstance(old, SuiteState)


def test_what_follows_the_loss_within_an_arm_is_said_in_the_contract(tones_corpus: Path) -> None:
    corpus = Corpus.open(tones_corpus)
    base = BASE.override({"schedule": "plateau", "training.early_stopping": 3})
    declared = replace(suite({"focal": FOCAL}, metric="val/nll"), base=base)
    said = "the plateau schedule, early stopping, the choice of the best epoch"
    assert follows_own_loss(declared) == said
    assert ("follows each arm's own loss", said) in check_plan(declared, corpus, torch.device("cpu")).terms
    by_nll = replace(declared, base=base.override({"schedule.monitor": "val/nll", "training.metric": "val/nll"}))
    assert follows_own_loss(by_nll) == ""
    assert follows_own_loss(suite({"slow": {"optimizer.lr": 1e-4}})) == ""


# -- searches -----------------------------------------------------------------------------------------------------------


def rare(trial: Any) -> dict[str, Any]:
    """Changes the loss in one of fifty choices only."""
    weights = trial.suggest_categorical("weights", ["none"] * 1 + [f"none{k}" for k in range(48)] + ["inverse"])
    return {"loss.class_weights": "inverse" if weights == "inverse" else "none"}


def one_loss(trial: Any) -> dict[str, Any]:
    return {"loss": {"kind": "focal"}, "optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}


def smooth(trial: Any) -> dict[str, Any]:
    return {"loss.label_smoothing": trial.suggest_float("smoothing", 0.0, 0.2)}


@pytest.mark.parametrize(("space", "key"), [(rare, "class_weights"), (smooth, "label_smoothing"), (one_loss, "")])
def test_a_search_over_losses_is_not_judged_by_them(space: Any, key: str) -> None:
    study = Study("s", base=BASE, space=space, metric="val/loss", direction="minimize")
    if not key:
        check_study_losses(study)
        return
    with pytest.raises(UserError, match=rf"judged by val/loss, and its space changes the loss \(loss.{key}\).*val/nll"):
        check_study_losses(study)
    check_study_losses(replace(study, metric="val/nll"))


def test_a_plain_study_is_refused_too(tones_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "corpora").symlink_to(tones_corpus.parent)
    study = optuna.create_study(direction="minimize")
    with pytest.raises(UserError, match=r"space changes the loss \(loss.label_smoothing\)"):
        study.optimize(objective(BASE, smooth, workspace=tmp_path, device="cpu"), n_trials=1)


def test_an_older_search_says_that_its_trials_are_not_comparable() -> None:
    focal = BASE.override(FOCAL)
    stored = {"configuration 0": BASE.to_json(None), "configuration 1": focal.to_json(None), "broken": "{"}
    assert loss_remark("val/loss", stored).startswith("Not comparable: the runs differ in loss.kind, loss.gamma")
    assert loss_remark("val/nll", stored) == ""
    assert loss_remark("val/loss", {"a": BASE.to_dict(), "b": BASE.to_json()}) == ""
    assert other_losses({"a": BASE, "b": focal, "c": focal})["loss.kind"] == "cross_entropy in a, focal in b, c"
