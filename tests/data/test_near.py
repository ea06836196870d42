"""Nearly identical clips: found whatever was done to the copy, and not where clips are only alike."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from audio_cls.core.workspace import Workspace
from audio_cls.data import near, near_candidates
from audio_cls.data.corpus import Corpus
from audio_cls.data.making import generate, prepare
from audio_cls.data.near import Sketcher, align, near_notes, near_on_two_sides, near_pairs, near_warning
from audio_cls.data.near_candidates import LEAST_EVIDENCE
from audio_cls.data.splits import Split
from audio_cls.experiment import Experiment
from audio_cls.report.description import describe
from audio_cls.runs.resolve import announce, resolve
from tests.commands import call

RATE = 16000


def sound(seed: int, seconds: float = 2.0) -> np.ndarray:
    """Bursts of coloured noise over a quiet floor."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.standard_normal(int(RATE * seconds)))
    x = np.diff(x, prepend=0.0) + 0.05 * (x - x.mean()) / x.std()
    envelope = np.repeat(rng.uniform(0.1, 1.0, int(seconds * 8) + 1), RATE // 8)[: len(x)]
    return (0.1 * x * envelope).astype(np.float32)


def coded(x: np.ndarray, container: str, subtype: str) -> np.ndarray:
    file = io.BytesIO()
    sf.write(file, x, RATE, format=container, subtype=subtype, compression_level=0.9)
    file.seek(0)
    return np.asarray(sf.read(file, dtype="float32")[0])


ALTERED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "quieter by 20 dB": lambda x: np.rint(x * 3276.8).astype(np.float32) / 32768,
    "turned over": lambda x: -x,
    "mp3": lambda x: coded(x, "MP3", "MPEG_LAYER_III"),
    "ogg": lambda x: coded(x, "OGG", "VORBIS"),
    "begins later": lambda x: x[int(0.4 * RATE) :],
    "ends earlier": lambda x: x[: -int(0.4 * RATE)],
    "through 8 kHz": lambda x: soxr.resample(soxr.resample(x, RATE, 8000), 8000, RATE),
    "padded with silence": lambda x: np.concatenate([np.zeros(5000, np.float32), x]),
    "mp3, quieter, begins later": lambda x: coded(0.3 * x, "MP3", "MPEG_LAYER_III")[RATE // 4 :],
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_copy_is_found_and_another_sound_of_the_kind_is_not(what: str) -> None:
    x, sketcher = sound(0), Sketcher(RATE, 2 * RATE)
    copy = ALTERED[what](x)
    mine, evidence, _ = sketcher(x)
    assert evidence > 500
    assert float(mine @ sketcher(copy)[0]) > 0.4
    similarity, shift = align(copy, x, RATE)
    assert similarity > 0.6
    later = {"begins later": -0.4, "padded with silence": 5000 / RATE}
    if what in later:
        assert shift == pytest.approx(later[what], abs=1e-3)
    other = sound(1)
    assert abs(float(mine @ sketcher(other)[0])) < 0.15
    assert align(x, other, RATE)[0] < 0.15


@pytest.mark.parametrize("rate", [1000, 8000, 16000, 96000])
@pytest.mark.parametrize("samples", [1, 2, 60, 400, 3000])
def test_any_length_and_rate_is_taken(rate: int, samples: int) -> None:
    rng = np.random.default_rng(samples)
    for x in (rng.standard_normal(samples), np.zeros(samples), np.ones(samples)):
        sketch, evidence, frequencies = Sketcher(rate, samples)(x.astype(np.float32))
        assert frequencies.dtype == np.int32
        assert sketch.shape == (1024,)
        assert np.isfinite(sketch).all()
        assert 0 <= evidence <= max(samples, 4)
        assert 0 <= align(x.astype(np.float32), x.astype(np.float32), rate)[0] <= 1


def test_what_has_no_structure_tells_nothing() -> None:
    t, sketcher = np.arange(2 * RATE) / RATE, Sketcher(RATE, 2 * RATE)
    tone = (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    rounded = np.rint(tone * 32768).astype(np.float32) / 32768
    click = np.zeros(2 * RATE, np.float32)
    click[100] = 1.0
    for x in (tone, rounded, click):
        assert sketcher(x)[1] < LEAST_EVIDENCE


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Twelve sounds in two classes, tones of one frequency, and three altered copies of three sounds."""
    root = tmp_path_factory.mktemp("near")
    rows = []
    for i in range(12):
        sf.write(root / f"{i}.wav", sound(i), RATE)
        rows.append(f"{i}.wav,{'ab'[i % 2]},")
    for i in range(4):
        t = np.arange(RATE * 2) / RATE
        sf.write(root / f"tone{i}.wav", (0.2 + 0.1 * i) * np.sin(2 * np.pi * 440 * t + i), RATE)
        rows.append(f"tone{i}.wav,a,")
    sf.write(root / "coded.mp3", sound(3), RATE)
    sf.write(root / "later.wav", sound(5)[RATE // 2 :], RATE)
    sf.write(root / "quiet.wav", 0.2 * sound(6), RATE)
    rows += ["coded.mp3,b,", "later.wav,b,", "quiet.wav,a,"]
    (root / "clips.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    workspace = Workspace(root / "workspace")
    prepare(root / "clips.csv", name="near", workspace=workspace, workers=1, progress=False)
    return workspace


@pytest.fixture
def corpus(workspace: Workspace) -> Corpus:
    return Corpus.open(workspace.corpora / "near")


def test_the_copies_of_a_corpus_are_found_and_kept_beside_it(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    [kept] = corpus.directory.glob("near-*.json")
    monkeypatch.setattr(Corpus, "samples_of", lambda self, i: pytest.fail("kept beside the samples"))
    found = {(corpus.ids[p.a], corpus.ids[p.b]): p for p in near_pairs(corpus)}
    assert found.keys() == {("3.wav", "coded.mp3"), ("5.wav", "later.wav"), ("6.wav", "quiet.wav")}
    assert found["5.wav", "later.wav"].shift == pytest.approx(0.5, abs=1e-3)
    assert corpus.identical == ()
    monkeypatch.undo()
    kept.unlink()
    assert len(near_pairs(corpus)) == 3, "a corpus of an earlier version"
    assert kept.exists()
    kept.unlink()
    monkeypatch.setattr(near_candidates, "EXHAUSTIVE", 0)
    assert {(corpus.ids[p.a], corpus.ids[p.b]): p for p in near_pairs(corpus)} == found, "by shared frequencies"


def test_pairs_on_two_sides_are_said_before_training_and_listed(
    workspace: Workspace,
    corpus: Corpus,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = corpus.ids.index("later.wav")
    rest = np.asarray([i for i in range(len(corpus)) if i != later])
    split = Split(rest, np.asarray([later]), np.asarray([], np.int64))
    [(pair, side, other)] = near_on_two_sides(corpus, split)
    assert (corpus.ids[pair.a], side, other) == ("5.wav", "train", "validation")
    warning = near_warning(corpus, split)
    assert warning.startswith("1 pair of nearly identical clips on two sides of the split, such as '5.wav' (train)")
    assert near_warning(corpus, Split(rest, np.asarray([0]), np.asarray([], np.int64))) == ""
    made = describe(corpus, split)
    assert ("5.wav", "later.wav", "train | validation") in [(a, b, where) for a, b, _, _, where in made.near]
    shown = call(capsys, workspace.root, "data", "describe", "near", "--html", str(workspace.root / "near.html"))
    assert "note: 3 pairs of nearly identical clips" in shown
    assert "later.wav" in (workspace.root / "near.html").read_text()
    said: list[str] = []
    monkeypatch.setattr("audio_cls.runs.resolve.say", lambda text, err=False: said.append(text))
    for seed in range(3):
        asked = {"data.corpus": "near", "data.split": "grouped", "data.split.seed": seed}
        announce(resolve(Experiment().override(asked), corpus), corpus)
    warned = [text for text in said if text.startswith("warning: ")]
    assert warned
    assert all("of nearly identical clips on two sides of the split" in text for text in warned)


def test_pairs_that_a_group_holds_together_are_no_news(corpus: Corpus) -> None:
    assert near_notes(corpus)
    corpus.groups = ("one",) * len(corpus)
    assert near_notes(corpus) == []


def test_generated_sounds_of_a_class_are_not_taken_for_copies(tmp_path: Path) -> None:
    folder = generate(tmp_path / "made", n_clips=40, clip_seconds=0.5, n_groups=40, workers=1)
    corpus = prepare(folder, name="made", workspace=tmp_path, workers=1, progress=False).corpus
    assert near_pairs(corpus) == ()


def test_two_clips_are_enough(tmp_path: Path) -> None:
    for name, x in (("a", sound(0, 0.2)), ("b", sound(0, 0.2) * 0.5)):
        (tmp_path / name).mkdir()
        sf.write(tmp_path / name / "x.wav", x, RATE)
    corpus = prepare(tmp_path, name="two", workspace=tmp_path / "w", layout="audio_folder", progress=False).corpus
    [pair] = near_pairs(corpus)
    assert (pair.a, pair.b) == (0, 1)
    assert pair.similarity > 0.9


def test_pairs_of_sketches_are_the_same_for_any_size_of_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    common = rng.standard_normal((1, near.SIZE))
    sketches = (rng.standard_normal((30, near.SIZE)) + common * rng.uniform(0, 1, (30, 1))).astype(np.float32)
    sketches /= np.linalg.norm(sketches, axis=1, keepdims=True)
    evidence = np.where(np.arange(30) % 7 == 3, 5.0, rng.uniform(10.0, 2000.0, 30))
    correlation = sketches @ sketches.T
    expected = {
        (j, k)
        for j in range(30)
        for k in range(j + 1, 30)
        if min(evidence[j], evidence[k]) >= LEAST_EVIDENCE
        and correlation[j, k]
        >= near_candidates.least_similar(
            near_candidates.CANDIDATE, near_candidates.MOST[0], min(evidence[j], evidence[k])
        )
    }
    assert 20 < len(expected) < 400
    for tile in (1, 7, 30, 64):
        monkeypatch.setattr(near_candidates, "_TILE", tile)
        found = list(near_candidates.all_candidates(sketches, evidence))
        assert len(found) == len(expected)
        assert {(j, k) for _, j, k in found} == expected
        assert all(value == pytest.approx(correlation[j, k], abs=1e-5) for value, j, k in found)


def test_pairs_by_shared_frequencies_are_those_of_all_pairs_that_are_much_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, sketcher, n = np.random.default_rng(0), Sketcher(8000, 8000), 120
    clips = rng.standard_normal((n, 8000)).astype(np.float32)
    clips[1:40:2] = 0.9 * clips[0:40:2] + 0.43 * clips[1:40:2]
    clips[100:] = clips[99] + 0.3 * clips[100:]  # many copies of one clip
    made = [sketcher(x) for x in clips]
    sketches = np.stack([near_candidates.stored(s.values) for s in made])
    evidence, frequencies = np.asarray([s.evidence for s in made]), np.stack([s.frequencies for s in made])
    evidence[2] = 5.0  # too little to tell
    every = {(j, k): value for value, j, k in near_candidates.all_candidates(sketches, evidence)}
    monkeypatch.setattr(near_candidates, "EXHAUSTIVE", n - 2)
    found = near_candidates.candidates(sketches, evidence, frequencies, 1000)
    assert found == sorted(found, reverse=True)
    assert {(j, k) for _, j, k in found} <= every.keys()
    assert all(value == pytest.approx(every[j, k], abs=1e-4) for value, j, k in found)
    much = {pair for pair, value in every.items() if value > 0.5}
    assert len(much) > 100
    assert (2, 3) not in every
    assert len(much & {(j, k) for _, j, k in found}) > 0.95 * len(much)
    assert near_candidates.candidates(sketches, evidence, frequencies, 1000) == found
    assert near_candidates.candidates(sketches, evidence, frequencies, 5) == found[:5]
    monkeypatch.setattr(near_candidates, "BUCKET", 2)
    fewer = near_candidates.candidates(sketches, evidence, frequencies, 1000)
    assert {(j, k) for _, j, k in fewer} < {(j, k) for _, j, k in found}, (
        "a limit on the work where many clips are alike"
    )
    monkeypatch.setattr(near_candidates, "EXHAUSTIVE", n)
    assert {(j, k) for _, j, k in near_candidates.candidates(sketches, evidence, frequencies, 1000)} == every.keys()
