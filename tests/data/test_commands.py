"""`audio-cls data` as a user types it: the rate and the next commands are said, wrong words and damage are one message."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from audio_cls.data.corpus import Corpus
from tests.commands import call, run
from tests.conftest import write_tones
from tests.data import published_layouts


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones at 8 kHz, listed in a CSV."""
    return write_tones(tmp_path_factory.mktemp("data-commands") / "tones", n_per_class=3, seconds=0.3)


def test_prepare_says_the_rate_and_what_comes_next(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, tmp_path, "data", "prepare", str(source), "--name", "tones")
    assert "tones: 9 clips, 3 classes, multiclass, 8000 Hz (the rate of 9 of 9 clips)" in shown
    for words in ("audio-cls data describe tones", "audio-cls train --set data.corpus=tones"):
        assert words in shown
    shown = call(capsys, tmp_path, "data", "prepare", str(source), "--name", "up", "--sample-rate", "16000")
    assert "note: 9 of 9 clips are recorded below 16000 Hz" in shown
    assert "Better: --sample-rate 8000" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "x"], "no command 'prepare'. Allowed: {commands}. Did you mean 'data prepare'?"),
        (["run", "x"], "Did you mean 'ablate run' or 'study run'?"),
        (["data", "prepare", "{source}", "--name", "n", "--max-seconds", "nan"], "max_seconds=nan (--max-seconds): a number"),
        (["data", "prepare", "{source}", "--name", "n", "--sample-rate", "5"], "sample_rate=5 (--sample-rate): 1000 to 1000000"),
        (["data", "prepare", "{source}", "--name", "n", "--sample-rate", "16k"], "neither a whole number of hertz nor auto"),
        (["data", "prepare", "a" * 5000, "--name", "n"], "a path of 5,000 characters is too long"),
        (["data", "describe", "a" * 5000], "characters is too long"),
    ],
    ids=lambda w: " ".join(w)[:30] if isinstance(w, list) else "",
)  # fmt: skip
def test_a_mistake_is_one_message_and_leaves_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    shown = call(capsys, tmp_path, *(w.replace("{source}", str(source)) for w in words), code=2)
    for part in said.split("{commands}"):
        assert part in shown
    assert "Traceback" not in shown
    assert len(shown) < 1000
    assert list(tmp_path.rglob("index.json")) == []
    assert not (tmp_path / "corpora" / "n").exists()


def test_a_damaged_corpus_is_refused_before_training_and_repaired_by_the_command_that_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(source.parent, tmp_path / "mine")
    call(capsys, tmp_path, "data", "prepare", str(tmp_path / "mine" / source.name), "--name", "tones")
    corpus = Corpus.open(tmp_path / "corpora" / "tones")
    data = bytearray(corpus.samples_path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + len(data) * 14 // 100] = bytes(len(data) * 14 // 100)
    corpus.samples_path.write_bytes(data)
    before = {p.name for p in tmp_path.iterdir()}
    for words in (["train", "--set", "data.corpus=tones"], ["data", "verify", "tones"], ["data", "describe", "tones"]):
        shown = call(capsys, tmp_path, *words, code=2)
        assert "of 9 clips are damaged: " in shown
    assert {p.name for p in tmp_path.iterdir()} == before  # no run was begun
    repair = shown.split("repair it with: audio-cls ")[1].split()
    assert "digest " + corpus.digest[:12] in call(capsys, tmp_path, *repair)
    assert "every clip matches" in call(capsys, tmp_path, "data", "verify", "tones")


@pytest.mark.slow
def test_a_class_with_a_slash_is_trained_evaluated_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DCASE's `cafe/restaurant`, in metrics, tables, figures and file names; folds as lists; a view of the labels."""
    source = published_layouts.tut2017(tmp_path / "tut")
    assert "tut: 24 clips, 3 classes" in call(capsys, tmp_path, "data", "prepare", str(source), "--name", "tut")
    small = ("--set", "data.corpus=tut", "--set", "training.epochs=1", "--set", "training.batch_size=8")
    shown = run(tmp_path, "train", *small, "--name", "slash").stdout
    assert "data.split=lists: the lists of its 4 folds" in shown
    assert "cafe/restaurant" in call(capsys, tmp_path, "evaluate", "slash")
    page = tmp_path / "slash.html"
    call(capsys, tmp_path, "report", "slash", "--html", str(page))
    assert "cafe/restaurant" in page.read_text(encoding="utf-8")
    assert [p for p in tmp_path.rglob("*restaurant*") if p.is_dir()] == []
    view = (
        "--set",
        "data.labels=mapped",
        "--set",
        "data.labels.pairs=beach=outside,forest_path=outside,cafe/restaurant=inside",
    )
    run(tmp_path, "train", *small, *view, "--name", "view")
    assert "outside" in call(capsys, tmp_path, "evaluate", "view")


def test_show_writes_a_page_about_a_clip(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, tmp_path, "data", "prepare", str(source), "--name", "tones")
    shown = call(
        capsys, tmp_path, "data", "show", "tones", "audio/hum0.wav", "--set", "features.n_mels=32 features.f_max=2000"
    )
    page = (tmp_path / "reports" / "tones-audio-hum0.wav.html").read_text(encoding="utf-8")
    assert "tones-audio-hum0.wav.html" in shown
    for said in (
        "features.n_mels=32 features.f_max=2000",
        "as left to the data",
        "specaugment: ",
        "noise: ",
        "pitch_shift: ",
        "equalizer: ",
        "between_class: ",
        "% of this clip, ",
        "<audio controls",
        "ghum0",
    ):
        assert said in page
    for words, said in (
        (("audio/hum.wav",), "no clip 'audio/hum.wav' in this corpus of 9. Did you mean 'audio/hum"),
        (("audio/hum0.wav", "--set", "model=cnn4"), "model: a spectrogram depends on keys below features only"),
        (("audio/hum0.wav", "--set", "features.n_mel=3"), "Did you mean 'features.n_mels'"),
    ):  # fmt: skip
        assert said in call(capsys, tmp_path, "data", "show", "tones", *words, code=2)


def test_a_view_is_described(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, tmp_path, "data", "prepare", str(source), "--name", "tones")
    words = ("data", "describe", "tones", "--set")
    shown = call(capsys, tmp_path, *words, "data.labels=one_against_rest", "--set", "data.labels.target=hum")
    assert "other" in shown
    assert "majority accuracy" in shown
    assert "only keys below data.labels" in call(capsys, tmp_path, *words, "features=mfcc", code=2)
