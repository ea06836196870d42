"""What a run records and shows beside its metrics: figures of families, of training clips, of groups of clips, of several runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import audio_cls as ac
from audio_cls.core.config import ConfigError
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.packing import prepare
from audio_cls.experiment import check_metric_fits
from tests.ablation.test_ablation import BASE

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


@pytest.fixture(scope="module")
def trained(workspace: Path) -> tuple[Any, Any]:
    """Two runs of two epochs, the second with another learning rate."""
    base = BASE.override(QUICK)
    settings: dict[str, Any] = {"workspace": workspace, "device": "cpu", "progress": False}
    return (
        ac.train(base, name="first", **settings),
        ac.train(base.override({"optimizer.lr": 1e-2}), name="second", **settings),
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
