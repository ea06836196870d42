"""`data convert`: what is written is read back by the sources of the layouts, as distributed, with the same clips and labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from audio_cls.core.errors import UserError
from audio_cls.core.rng import numpy_rng
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.packing import prepare
from audio_cls.data.writing.audioset import quantise
from audio_cls.runs.conversion import convert
from tests.commands import call, run


@pytest.fixture(scope="module")
def tones(tones_corpus: Path) -> Corpus:
    return Corpus.open(tones_corpus)


def read_back(folder: Path, corpus: Path, **options: object) -> Corpus:
    return prepare(sources.read(folder, **options), corpus, workers=1, on_bad="refuse").corpus


def labels_by_group(corpus: Corpus) -> dict[str | None, tuple[int, list[str]]]:
    """The group, fold and labels of each clip; groups of the tones are single clips."""
    names = [[corpus.classes[k] for k in labels] for labels in corpus.label_lists]
    return dict(zip(corpus.groups, zip(corpus.folds.tolist(), names, strict=True), strict=True))


def test_audio_in_parquet_is_the_same_corpus(tones: Corpus, tmp_path: Path) -> None:
    made = convert(tones, "parquet", tmp_path / "tables", {"clips_per_file": 11})
    files = sorted(p.name for p in (made.folder / "data").iterdir())
    assert files == [f"clips-0000{k}-of-00003.parquet" for k in range(3)]
    again = read_back(made.folder, tmp_path / "corpus")
    assert again.digest == tones.digest
    assert again.ids == tones.ids


def test_pictures_keep_folds_groups_and_labels(tones: Corpus, tmp_path: Path) -> None:
    made = convert(tones, "pictures", tmp_path / "pictures", {"features.n_mels": 32})
    options = dict(option.split("=", 1) for option in made.options)
    again = read_back(
        made.folder,
        tmp_path / "corpus",
        fold_pattern=options["fold_pattern"],
        group_pattern=options["group_pattern"],
        columns_per_second=float(options["columns_per_second"]),
    )
    assert labels_by_group(again) == labels_by_group(tones)
    assert again.payload.row == (1, 32)
    assert sorted(again.seconds) == pytest.approx(sorted(tones.seconds), abs=0.05)
    beep = again.values(next(i for i, k in enumerate(again.label_lists) if again.classes[k[0]] == "beep"))
    hum = again.values(next(i for i, k in enumerate(again.label_lists) if again.classes[k[0]] == "hum"))
    assert beep.mean((0, 1)).argmax() < hum.mean((0, 1)).argmax()  # high frequencies at the top
    with pytest.raises(UserError, match=r"fold_pattern='g\(x\)' finds None in this path"):
        sources.read(made.folder, fold_pattern="g(x)")


def test_embeddings_are_read_as_audioset(tones: Corpus, tmp_path: Path) -> None:
    made = convert(tones, "embeddings", tmp_path / "records")
    assert "fold 5 is the evaluation set" in made.notes
    again = read_back(made.folder, tmp_path / "corpus")
    assert (again.payload.domain, again.payload.values, again.task) == ("sequence", "quantised PCA", "multilabel")
    assert again.classes == tones.classes
    ours = {group: labels for group, (_, labels) in labels_by_group(tones).items()}
    assert {group: labels for group, (_, labels) in labels_by_group(again).items()} == ours
    tested = {group for group, fold in zip(tones.groups, tones.folds, strict=True) if fold == 5}
    assert {g for g, split in zip(again.groups, again.splits, strict=True) if split == "test"} == tested
    rows = np.concatenate([again.values(i) for i in range(len(again)) if again.splits[i] == "train"])
    assert rows.shape[1] == 128
    assert abs(rows[:, :8].mean()) < 0.3  # whitened: mean 0, deviation 1, clipped at 2
    assert 0.6 < rows[:, :8].std() < 1.1
    means = np.stack([again.values(i).mean(0) for i in range(len(again))])
    assert np.unique(means.round(3), axis=0).shape[0] == len(again)


def test_quantised_values_come_back_within_a_step() -> None:
    values = numpy_rng(0, "quantise").uniform(-1.99, 1.99, 1000)
    stored = quantise(values)
    assert np.abs(stored * (4 / 255) + 4 / 512 - 2 - values).max() < 4 / 255
    assert quantise(np.asarray([-9.0, 9.0])).tolist() == [0, 255]


def test_equal_calls_give_equal_files_and_go_on(tones: Corpus, tmp_path: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def stop(done: int, total: int, what: str) -> None:
        if done >= 7:
            raise KeyboardInterrupt

    for kind in ("pictures", "parquet"):
        with pytest.raises(KeyboardInterrupt):
            convert(tones, kind, tmp_path / kind, None, stop)
        convert(tones, kind, tmp_path / kind)
        convert(tones, kind, tmp_path / "whole" / kind)
        assert files(tmp_path / kind) == files(tmp_path / "whole" / kind)
    with pytest.raises(UserError, match="holds a conversion of another corpus or of other settings"):
        convert(tones, "parquet", tmp_path / "pictures")
    with pytest.raises(UserError, match=r"is not empty and holds no conversion\.json"):
        convert(tones, "parquet", tmp_path / "whole")
    with pytest.raises(UserError, match=r"no layout 'picture' .*Did you mean 'pictures'"):
        convert(tones, "picture", tmp_path / "new")
    with pytest.raises(UserError, match=r"test_fold=9: 'clips' has the folds 1, 2, 3, 4, 5"):
        convert(tones, "embeddings", tmp_path / "new", {"test_fold": 9})


@pytest.mark.long
@pytest.mark.timeout(900)
def test_one_sound_corpus_in_every_layout_prepared_described_and_trained(
    tones_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """S1's tables, S2's mixtures, S4's records and S5's pictures of one corpus, by commands alone."""
    import shlex

    shutil.copytree(tones_corpus, tmp_path / "corpora" / "tones")
    short = ("--set", "training.epochs=1", "--set", "training.batch_size=8")
    for kind, words, said in (
        ("parquet", (), "fold 5"),
        ("pictures", ("--set", "features=pixels"), "image, uint8"),
        ("embeddings", ("--set", "features=frames", "--set", "model=mlp", "--set", "data.labels=one_against_rest", "--set", "data.labels.target=hum"), "quantised PCA"),
    ):  # fmt: skip
        shown = call(capsys, tmp_path, "data", "convert", "tones", str(tmp_path / kind), "--as", kind)
        command = shlex.split(shown.split("Next: audio-cls ")[1].splitlines()[0])
        assert "30 clips" in call(capsys, tmp_path, *command)
        assert said in call(capsys, tmp_path, "data", "describe", f"tones-{kind}")
        shown = run(tmp_path, "train", "--set", f"data.corpus=tones-{kind}", *words, *short, "--name", kind).stdout
        assert "validation" in shown
    call(capsys, tmp_path, "data", "mix", "tones", str(tmp_path / "mixed"), "--clips", "60")
    call(capsys, tmp_path, "data", "prepare", str(tmp_path / "mixed"), "--name", "mixed")
    assert "multilabel" in call(capsys, tmp_path, "data", "describe", "mixed")
    shown = run(tmp_path, "train", "--set", "data.corpus=mixed", "--set", "loss=bce", *short, "--name", "mix").stdout
    assert "lwlrap" in shown
