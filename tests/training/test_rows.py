"""Corpora of sequences and pictures: their windows, and an epoch of training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio_cls.components.row_features import BEGIN, END, PADDING, REAL
from audio_cls.core.config import ConfigError
from audio_cls.core.workspace import Workspace
from audio_cls.data.codecs import Pictures, SequenceExamples
from audio_cls.data.corpus import Corpus, DamagedCorpus
from audio_cls.data.manifest import Clip, Manifest
from audio_cls.data.packing import prepare
from audio_cls.experiment import Experiment
from audio_cls.report.data import data_report
from audio_cls.report.description import describe
from audio_cls.runs.preparation import Runtime, prepare_run
from audio_cls.runs.resolve import hand_set_faults, resolve
from audio_cls.training.checkpoint import CheckpointStore
from audio_cls.training.loop import fit
from audio_cls.training.row_windows import window_places
from tests.data.layouts import embedding, embeddings_manifest, example, write_pictures, write_records


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with `emb`, 48 sequences of 6 to 10 embeddings, and `pics`, 40 pictures of 40 x 32."""
    root = tmp_path_factory.mktemp("rows")
    prepare(embeddings_manifest(root / "src" / "emb"), root / "corpora" / "emb", workers=1)
    paths = write_pictures(root / "src" / "pics")
    clips = tuple(Clip(p.name, p, (p.parent.name,), fold=1 + i // 2 % 4) for i, p in enumerate(paths))
    codec = Pictures().fitted(paths)
    manifest = Manifest("pics", clips, ("high", "low"), "multiclass", "test", root=root / "src" / "pics", codec=codec)
    prepare(manifest, root / "corpora" / "pics", workers=1)
    return root


def ready(root: Path, **changes: Any) -> tuple[Experiment, Runtime]:
    runtime = Runtime(Workspace.of(root), None, torch.device("cpu"))  # type: ignore[arg-type]
    base = {"data.corpus": "emb", "features": "frames", "model": "mlp", "training.epochs": 1}
    if changes.get("data.corpus") == "pics":
        base |= {"features": "pixels", "model": "small_cnn"}
    experiment = Experiment().override({**base, **changes})
    return resolve(experiment, runtime.corpus(experiment.data)).experiment, runtime


# -- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "where", "margin", "pad", "rows", "places"),
    [
        (3, 0.5, 0, "zero", "0001222", "pprrrpp"),
        (3, 0.5, 0, "end", "0122222", "rrrpppp"),
        (3, 0.5, 0, "tile", "0120120", "rrrrrrr"),
        (3, 0.5, 1, "end", "0012222", "brrrepp"),
        (3, 0.5, 1, "zero", "0001222", "pbrrrep"),
        (3, 0.5, 1, "tile", "0012200", "brrrebr"),
        (7, 0.9, 0, "zero", "0123456", "rrrrrrr"),
        (9, 0.0, 0, "end", "0123456", "rrrrrrr"),
        (9, 0.999, 0, "end", "2345678", "rrrrrrr"),
        (9, 0.999, 1, "end", "3456788", "rrrrrre"),
        (9, 0.0, 1, "end", "0012345", "brrrrrr"),
    ],
)
def test_what_stands_at_each_frame(length: int, where: float, margin: int, pad: str, rows: str, places: str) -> None:
    row, place = window_places(np.array([length]), np.array([where]), 7, margin, pad)
    letters = {REAL: "r", PADDING: "p", BEGIN: "b", END: "e"}
    assert "".join(letters[int(p)] for p in place[0]) == places
    assert "".join(map(str, row[0])) == rows


# -- an epoch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"features.markers": (-1.0, -2.0), "data.pad": "end", "model": "small_cnn", "augment.time_roll": "on"},
        {"model.pooling": "flatten", "augment.offset.force": True, "augment.average_positives.force": True},
        {"data.corpus": "pics", "augment.specaugment": "on", "augment.mixup": "on"},
        {"data.corpus": "pics", "features.size": 32, "features.normalise": "imagenet", "data.clip_seconds": 0.25},
    ],
)
def test_an_epoch_learns_and_is_the_same_again(changes: dict[str, Any], corpora: Path, tmp_path: Path) -> None:
    values = []
    for k in range(2):
        experiment, runtime = ready(corpora, **{"training.epochs": 4, "optimizer.lr": 5e-3, **changes})
        prepared = prepare_run(experiment, runtime)
        result = fit(experiment, prepared.chain, prepared.batches, CheckpointStore(tmp_path / str(k)))
        values.append([row["train/loss"] for row in result.history])
    assert values[0] == values[1]
    assert values[0][-1] < values[0][0]


def test_a_batch_holds_what_the_corpus_holds(corpora: Path) -> None:
    experiment, runtime = ready(corpora, **{"data.pad": "end", "data.clip_seconds": None})
    assert experiment.data.clip_seconds == 10
    prepared = prepare_run(experiment, runtime)
    corpus, batches = prepared.corpus, prepared.batches
    clips = np.flatnonzero(corpus.lengths < 10)[:3]
    x = batches.features(clips, np.full(3, 0.5))
    assert x.shape == (3, 1, 128, 10)
    for k, clip in enumerate(clips.tolist()):
        n = int(corpus.lengths[clip])
        np.testing.assert_allclose(x[k, 0, :, :n].T.numpy(), corpus.values(clip), atol=1e-6)
        assert float(x[k, 0, :, n:].abs().max()) == 0
    train = np.concatenate([corpus.values(int(i)) for i in prepared.split.train])
    normaliser = prepared.chain.classifier.normaliser
    np.testing.assert_allclose(normaliser.mean.flatten().numpy(), train.mean(0), atol=1e-4)
    np.testing.assert_allclose(normaliser.std.flatten().numpy(), train.std(0), rtol=1e-4)


def test_whole_clips_that_are_mostly_padding_are_said(tmp_path: Path) -> None:
    short, long = embedding(2, 0, 0), embedding(40, 1, 1)
    offsets = write_records(tmp_path / "a.tfrecord", [example(f"v{i}", [0], short if i else long) for i in range(20)])
    clips = tuple(Clip(f"v{i}", tmp_path / "a.tfrecord", ("ab"[i % 2],), position=at) for i, at in enumerate(offsets))
    manifest = Manifest("m", clips, ("a", "b"), "multiclass", "test", codec=SequenceExamples())
    corpus = prepare(manifest, tmp_path / "c", workers=1).corpus
    assert corpus.identical == (tuple(range(1, 20)),)  # rows are compared as they are
    whole = resolve(Experiment().override({"data.clip_seconds": None, "data.split.allow_duplicates": True}), corpus)
    assert whole.experiment.data.clip_seconds == 40
    [fault] = hand_set_faults(whole, corpus)
    assert fault.startswith("data.clip_seconds=40: 90% of the windows is padding, the median clip lasts 2 s. Better: ")
    assert "data.clip_seconds=40.0: whole clips: the longest lasts 40 s" in whole.lines()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features": "log_mel"},
            "features.kind=log_mel takes a corpus of waveforms, but .* holds sequence, quantised PCA.* one of frames",
        ),
        ({"features": "pixels", "model": "small_cnn"}, "features.kind=pixels takes a corpus of images"),
        (
            {"augment.noise": "on"},
            "augment.noise takes waveform, but features.kind=frames gives sequence: take it out",
        ),
        ({"augment.offset": "on"}, "no meaning for the quantised PCA values .* insist: augment.offset.force=true"),
        ({"augment.average_positives": "on"}, "no meaning .* the network that made them is not linear"),
        ({"model": "logistic_regression"}, "model.kind=logistic_regression takes embedding"),
        ({"data.sample_rate": 16000}, "holds 1 rows a second: leave it to the data"),
        ({"data.corpus": "pics", "augment.offset": "on"}, "augment.offset takes sequence"),
        ({"data.corpus": "pics", "features": "log_mel"}, "set features.kind to one of pixels"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_built(changes: dict[str, Any], message: str, corpora: Path) -> None:
    experiment, runtime = ready(corpora, **changes)
    with pytest.raises(ConfigError, match=message):
        prepare_run(experiment, runtime)


def test_rows_that_are_damaged_are_never_trained_on(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audio_cls.data.corpus._SAMPLE_BYTES", 0)  # opening looks at no clip
    corpus = Corpus.open(corpora / "corpora" / "emb")
    whole = corpus.samples_path.read_bytes()
    try:
        corpus.samples_path.write_bytes(b"\0" * 128 + whole[128:])
        experiment, runtime = ready(corpora)
        with pytest.raises(DamagedCorpus, match=rf"1 of 48 clips are damaged: {corpus.ids[0]}"):
            prepare_run(experiment, runtime)
    finally:
        corpus.samples_path.write_bytes(whole)


def test_they_are_described_and_drawn(corpora: Path) -> None:
    for name, words in (
        ("emb", "sequence, quantised PCA, uint8 (128,) at 1 rows/s"),
        ("pics", "image, uint8 (3, 32) at 100 rows/s"),
    ):
        corpus = Corpus.open(corpora / "corpora" / name)
        facts = dict(describe(corpus).tables()[0].rows)
        assert facts["rows"] == words
        assert "packed at" not in facts
        page = data_report(corpus)
        assert corpus.classes[0] in page
        assert "original rates" not in page
