"""The published systems as files: each loads, keeps the contract, and every arm or row can be built for a corpus of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from audio_cls.ablation.declaration import load_ablation
from audio_cls.data.codecs.sequence_example import SequenceExamples
from audio_cls.data.corpus import Corpus
from audio_cls.data.manifest import Clip, Manifest
from audio_cls.data.packing import prepare
from audio_cls.experiment import Experiment
from audio_cls.runs.preparation import check_fits
from audio_cls.runs.resolve import resolve
from audio_cls.study import load_study_file
from audio_cls.study.grid import grid_rows
from tests.data.layouts import embedding, example, write_records
from tests.data.published_layouts import wav

ROOT = Path(__file__).parents[2]
CLASSES = (
    "chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog", "helicopter", "rain", "rooster", "sea_waves", "sneezing",
)  # fmt: skip
SUITES = sorted(ROOT.glob("experiments/s[1-4]_*.py"))
STUDIES = sorted(ROOT.glob("studies/s[1-4]_*.py"))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """Tiny corpora with the classes of ESC-10: sounds, mixtures with several labels, embeddings with a published split."""
    root = tmp_path_factory.mktemp("systems")
    sounds, mixtures = [], []
    for i, label in enumerate(CLASSES):
        for fold in range(1, 6):
            path = wav(root / "audio" / f"{label}{fold}.wav", seconds=0.1 + 0.01 * fold, rate=16000)
            sounds.append(Clip(path.stem, path, (label,), fold=fold))
            mixtures.append(Clip(path.stem, path, (label, CLASSES[(i + fold) % 10]), fold=fold))
    made = [example(f"v{k}", [k % 10], embedding(10, k % 10, k)) for k in range(40)]
    records = root / "00.tfrecord"
    clips = [
        Clip(f"v{k}", records, (CLASSES[k % 10],), split="test" if k >= 30 else "train", position=offset)
        for k, offset in enumerate(write_records(records, made))
    ]
    families = {name: ("even" if i % 2 else "odd",) for i, name in enumerate(CLASSES)}
    manifests = [
        Manifest("esc10", tuple(sounds), CLASSES, "multiclass", "test", root=root),
        Manifest("esc10-mix", tuple(mixtures), CLASSES, "multilabel", "test", root=root, families=families),
        Manifest("esc10-embeddings", tuple(clips), CLASSES, "multilabel", "test", root=root, codec=SequenceExamples()),
    ]
    for manifest in manifests:
        rate: Any = {} if manifest.name == "esc10-embeddings" else {"sample_rate": 16000}
        prepare(manifest, root / "corpora" / manifest.name, workers=1, **rate)
    return {manifest.name: Corpus.open(root / "corpora" / manifest.name) for manifest in manifests}


def _build(experiment: Experiment, corpora: dict[str, Corpus]) -> None:
    corpus = experiment.data.labels.apply(corpora[experiment.data.corpus])
    check_fits(resolve(experiment, corpus).experiment, corpus)


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_every_arm_of_a_suite_can_be_built(file: Path, corpora: dict[str, Corpus]) -> None:
    declared = load_ablation(file)
    assert declared.published
    fold = 1 if declared.folds else 0
    for arm in declared.arms:
        _build(declared.experiment(arm, 0, fold), corpora)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_draws_what_can_be_built(file: Path, corpora: dict[str, Corpus]) -> None:
    declared, text = load_study_file(file)
    assert f"audio-cls study run studies/{file.name}" in text
    assert declared.published
    if declared.drawn:
        trial: Any = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
        trials = [trial]
    else:
        rows = grid_rows(declared)
        trials = [optuna.trial.FixedTrial(row) for row in (rows[0], rows[len(rows) // 2], rows[-1])]
    for trial in trials:
        experiment = declared.experiment(declared.overrides(trial))
        assert isinstance(experiment, Experiment)
        _build(experiment, corpora)


def test_there_are_files_of_every_system() -> None:
    found = {file.stem[:2] for file in SUITES} | {file.stem[:2] for file in STUDIES}
    assert found == {"s1", "s2", "s3", "s4"}
    assert all(file.read_text(encoding="utf-8").lstrip("r").startswith('"""S') for file in (*SUITES, *STUDIES))
