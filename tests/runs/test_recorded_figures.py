"""What a run records and shows beside its metrics: figures of families, of training clips, of groups of clips, of several runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import audio_cls as ac
from audio_cls.ablation.clip_groups import arms_by_column
from audio_cls.core.config import ConfigError
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.packing import prepare
from audio_cls.experiment import check_metric_fits
from audio_cls.training.predictions import corpus_predictions
from tests.ablation.test_ablation import BASE
from tests.commands import call

FAMILIES = {"hum": ("steady",), "hiss": ("steady",), "beep": ("pulsed",)}
QUICK: dict[str, Any] = {
    "data.corpus": "grouped",
    "data.split.test_fold": 1,
    "training.epochs": 2,
    "training.metric": "val/family_map",
}


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a corpus `grouped`: 30 clips of 3 classes in 2 families, with a column `salience`, and groups of 2 clips."""
    root = tmp_path_factory.mktemp("figures")
    manifest = sources.read(tones_corpus.parent.parent / "source" / "clips.csv", "csv")
    clips = [dataclasses.replace(clip, group=f"{clip.labels[0]} {clip.fold}") for clip in manifest.clips]
    salience = tuple(1 + (i % 3 == 0) for i in range(len(clips)))
    changed = dataclasses.replace(
        manifest, name="grouped", clips=tuple(clips), families=FAMILIES, extra={"salience": salience}
    )
    prepare(changed, root / "corpora" / "grouped", sample_rate=8000, workers=1)
    return root


def test_a_metric_that_no_run_on_a_corpus_reports_is_refused(workspace: Path, tones_corpus: Path) -> None:
    grouped, tones = Corpus.open(workspace / "corpora" / "grouped"), Corpus.open(tones_corpus)
    assert grouped.family_columns == {"pulsed": (0,), "steady": (1, 2)}
    check_metric_fits("val/family_map", grouped)
    with pytest.raises(ConfigError, match="records none: prepare it with its ontology"):
        check_metric_fits("val/family_map", tones)
    with pytest.raises(ConfigError, match="is for multilabel tasks, and 'grouped' is multiclass"):
        check_metric_fits("val/family_map_noisy_or", grouped)


def test_arms_of_a_suite_are_compared_by_columns_of_the_clips(workspace: Path) -> None:
    """Each clip judged by the run that held it out, on the seeds that all arms have; an arm without a whole seed is left out."""
    corpus = Corpus.open(workspace / "corpora" / "grouped")
    folds = np.asarray(corpus.folds)
    salience = np.asarray(corpus.extra["salience"])
    rng = np.random.default_rng(0)
    values = {
        (arm, seed): rng.dirichlet(np.ones(3), len(folds)) for arm in ("mixup", "plain", "half") for seed in (0, 1, 2)
    }
    scores: dict[str, dict[Any, Any]] = {"mixup": {}, "plain": {}, "half": {}}
    for (arm, seed), table in values.items():
        for fold in sorted(set(folds.tolist())):
            if (arm, seed) != ("mixup", 2) and (arm != "half" or fold == 1):
                rows = np.flatnonzero(folds == fold)
                scores[arm][seed, fold] = corpus_predictions(corpus, rows, table[rows])
    found = arms_by_column(scores, "plain", sorted(set(folds.tolist())), corpus)
    assert set(found) == {"salience"}  # groups hold two clips each: too few
    assert [(s.value, s.arm, s.n_clips) for s in found["salience"]] == [
        ("1", "plain", 20), ("1", "mixup", 20), ("2", "plain", 10), ("2", "mixup", 10),
    ]  # fmt: skip
    for item in found["salience"]:
        rows = np.flatnonzero(salience == int(item.value))
        right = [values[item.arm, seed][rows].argmax(1) == corpus.targets[rows].argmax(1) for seed in (0, 1)]
        assert item.figure.estimate == pytest.approx(np.mean(right))
    assert arms_by_column({"plain": {}, "half": scores["half"]}, "plain", [1, 2], corpus) == {}


@pytest.fixture(scope="module")
def trained(workspace: Path) -> tuple[Any, Any]:
    """Two runs of two epochs, the second with another learning rate."""
    base = BASE.override(QUICK)
    settings: dict[str, Any] = {"workspace": workspace, "device": "cpu", "progress": False}
    return (
        ac.train(base, name="first", **settings),
        ac.train(base.override({"optimizer.lr": 3e-3}), name="second", **settings),
    )


@pytest.mark.slow
def test_a_run_records_figures_of_families_and_of_the_training_pass(trained: tuple[Any, Any]) -> None:
    run, _ = trained
    history = run.history
    assert {"train/accuracy", "train/macro_f1", "val/family_map", "val/weighted_f1"} <= set(history.columns)
    assert ((history["train/macro_f1"] >= 0) & (history["train/macro_f1"] <= 1)).all()
    assert run.metrics["family_map"] == pytest.approx(history["val/family_map"].max())
    predictions = run.predictions
    assert predictions.evaluation.overall["family_map"] == pytest.approx(run.metrics["family_map"])
    assert run.baseline["family_map"] < 1
    assert {"by_salience", "reliability", "confusion", "curves_overtraining"} <= set(run.figures())
    assert {trace.name for trace in run.figure("curves_overtraining").data} >= {"val/family_map"}
    page = run.tracker.download(run.id, "report.html").read_text(encoding="utf-8")
    assert all(f">{heading}</h2>" in page for heading in ("Groups of clips", "Calibration", "Training"))


@pytest.mark.slow
def test_figures_of_training_clips_and_of_groups_are_told(
    trained: tuple[Any, Any], workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained
    out = call(capsys, workspace, "evaluate", "first", "--train", "--by", "salience", "--device", "cpu")
    scored = run.evaluate(train=True, device="cpu")
    assert "train - validation" in out
    assert f"first: {len(scored.split.train)} training clips" in out
    assert scored.part == "train"
    assert list(scored.clips) == list(scored.split.train)
    assert "by salience" in out
    table = run.by("salience")
    assert list(table.index) == ["1", "2"]
    assert table["clips"].sum() == len(run.predictions)
    mean = (table["accuracy"] * table["clips"]).sum() / table["clips"].sum()
    assert mean == pytest.approx(run.metrics["accuracy"])
    refused = call(capsys, workspace, "evaluate", "first", "--by", "saliency", code=2)
    assert "has no column 'saliency'" in refused
    assert "Did you mean 'salience'" in refused
    assert "leave out --test" in call(capsys, workspace, "evaluate", "first", "--test", "--by", "salience", code=2)


@pytest.mark.slow
def test_curves_of_several_runs_stand_in_one_figure(
    trained: tuple[Any, Any], workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = trained
    found = ac.compare(one, other, workspace=workspace)
    assert found.figure_names() == ["curves_family_map", "curves_accuracy", "curves_loss", "loss_gap"]
    curves = found.figure("curves_accuracy")
    lines = {trace.name: list(trace.y) for trace in curves.data}
    assert len(lines) == 4  # validation and training of each run
    for run, head in zip(trained, found.heads, strict=True):
        assert lines[head] == pytest.approx(run.history["val/accuracy"])
        assert lines[f"{head}: train/accuracy"] == pytest.approx(run.history["train/accuracy"])
    gap = found.figure("loss_gap").data[0]
    assert list(gap.y) == pytest.approx(one.history["val/loss"] - one.history["train/loss"])
    out = call(capsys, workspace, "compare", "first", "second", "--html", str(tmp_path / "both.html"))
    assert f"the runs' curves: {tmp_path / 'both.html'}" in out.replace("\n", "")
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert all(f">{heading}</h2>" in page for heading in ("Curves", "Figures", "Paired", "Configuration"))
    assert "optimizer.lr" in page
