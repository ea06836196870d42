"""Capacity checks: trained and evaluated on the same clips, said so wherever a figure is shown, and used for no comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import audio_cls as ac
from audio_cls.ablation.cross_validation import plan_cross_validation
from audio_cls.core.errors import UserError
from audio_cls.data.corpus import Corpus
from audio_cls.data.remarks import OVERFIT_REMARK
from audio_cls.study.launches import Launch
from audio_cls.study.opening import declared_study
from audio_cls.study.search import check_study
from tests.commands import call

BASE = ac.Experiment().override(
    {
        "data.corpus": "tones",
        "data.clip_seconds": 0.5,
        "features.n_fft": 256,
        "features.n_mels": 16,
        "training.epochs": 1,
        "training.precision": "fp32",
    }
)
CHECK = BASE.override({"data.overfit": True, "data.split": "folds"})


def test_the_training_clips_validate_and_nothing_else_changes(tones_corpus: Path) -> None:
    corpus = Corpus.open(tones_corpus)
    split, plain = CHECK.data.assign(corpus), CHECK.override({"data.overfit": False}).data.assign(corpus)
    assert np.array_equal(split.validation, plain.train)
    assert np.array_equal(split.train, plain.train)
    assert np.array_equal(split.test, plain.test)
    assert split.digest != plain.digest
    assert "overfit" not in BASE.to_json()  # experiments of earlier versions keep their digests


def space(trial: Any) -> dict[str, Any]:
    return {"data.overfit": trial.suggest_categorical("check", [True])}


def test_no_suite_study_or_cross_validation_is_a_capacity_check(tones_corpus: Path) -> None:
    with pytest.raises(UserError, match=r"arm 'b': a suite: data.overfit=true is a capacity check"):
        ac.Ablation("s", base=BASE, reference="a", arms={"a": {}, "b": {"data.overfit": True}})
    with pytest.raises(UserError, match=r"study 's': data.overfit=true is a capacity check"):
        check_study(ac.Study("s", base=CHECK, space=space))
    with pytest.raises(UserError, match=r"a cross-validation: data\.overfit=true"):
        plan_cross_validation(CHECK, Corpus.open(tones_corpus), "all", 1)


def test_it_is_marked_and_compared_with_nothing(
    tones_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "tones").symlink_to(tones_corpus)
    run = ac.train(CHECK, workspace=tmp_path, progress=False)
    other = ac.train(CHECK.override({"data.overfit": False}), workspace=tmp_path, progress=False)
    assert [r.name for r in ac.list_runs(workspace=tmp_path) if r.name.startswith("overfit: ")] == [run.name]
    assert OVERFIT_REMARK in call(capsys, tmp_path, "report", run.id) or OVERFIT_REMARK in _page(tmp_path)
    assert OVERFIT_REMARK in call(capsys, tmp_path, "evaluate", run.id)
    assert OVERFIT_REMARK in call(capsys, tmp_path, "compare", run.id, other.id)
    assert "no test split is opened for it" in call(capsys, tmp_path, "evaluate", "--test", run.id, code=2)


def _page(workspace: Path) -> str:
    return "".join(page.read_text() for page in (workspace / "reports").glob("*.html"))


def test_a_study_tried_on_a_part_has_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "tried.py"
    file.write_text(
        "from audio_cls import Study\nfrom tests.runs.test_overfit import BASE, space\nSTUDY = Study('s', BASE, space)\n"
    )
    launch = Launch(file, ("data.subset.share=0.5", "data.subset.sides=train_validation"), suffix="-subset-0.5")
    tried = declared_study(launch)
    assert (tried.name, tried.base.data.subset.share) == ("s-subset-0.5", 0.5)


def test_the_command_line_tries_on_a_part_and_checks_capacity(
    tones_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "tones").symlink_to(tones_corpus)
    (tmp_path / "suite.py").write_text(
        "from audio_cls import Ablation\nfrom tests.runs.test_overfit import BASE\n"
        "ABLATION = Ablation('s', base=BASE, reference='a', arms={'a': {}, 'b': {'seed': 9}}, folds=None, seeds=[0])\n"
    )
    planned = call(capsys, tmp_path, "ablate", "plan", str(tmp_path / "suite.py"), "--subset", "0.5")
    assert "s-subset-0.5: the difference" in planned
    settings = [word for key, value in BASE.diff(ac.Experiment()).items() for word in ("--set", f"{key}={value[0]}")]
    shown = call(capsys, tmp_path, "train", "--overfit", "--subset", "0.5", *settings)
    assert OVERFIT_REMARK in shown
    assert shown.count("overfit: small_cnn log_mel") >= 1
