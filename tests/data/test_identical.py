"""The same audio under different names: found however it is wrapped, kept on one side of generated splits, refused on two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile as sf

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.data.default_split import AutoSplit, choose_split
from audio_cls.data.identical import identical_declared, identical_on_two_sides, undivided_groups, without_silence
from audio_cls.data.making import prepare
from audio_cls.data.remarks import corpus_notes, split_remarks
from audio_cls.data.splits import CrossValidation, Grouped, KFold, LeaveOneGroupOut, Official, SplitScheme
from audio_cls.experiment import Experiment
from audio_cls.report.description import describe
from audio_cls.runs.resolve import resolve
from audio_cls.training import loop
from audio_cls.training.checkpoint import Checkpoint, CheckpointStore
from tests.commands import call

RATE = 8000


def noise(seed: int, seconds: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(int(RATE * seconds)) * 3000).astype(np.int16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty clips of noise in two classes and five folds, and four copies: the same samples as FLAC, padded with silence, as a
    plain copy with another label, and of a clip that is in a group.
    """
    root = tmp_path_factory.mktemp("identical")
    rows = []
    for i in range(20):
        sf.write(root / f"{i}.wav", noise(i), RATE)
        rows.append([f"{i}.wav", "ab"[i % 2], 1 + (i if i < 10 else i // 2) % 5, f"g{i // 2}" if i >= 10 else ""])
    sf.write(root / "flac.flac", noise(0), RATE)
    sf.write(root / "padded.wav", np.concatenate([np.zeros(700, np.int16), noise(1), np.full(90, 2, np.int16)]), RATE)
    sf.write(root / "other.wav", noise(2), RATE)
    sf.write(root / "grouped.wav", noise(12), RATE)
    rows += [
        ["flac.flac", "a", 2, ""],
        ["padded.wav", "b", 2, ""],
        ["other.wav", "b", 3, ""],
        ["grouped.wav", "a", 4, "g8"],
    ]
    lines = ["path,label,fold,group", *(",".join(map(str, row)) for row in rows)]
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def workspace(root: Path) -> Workspace:
    workspace = Workspace(root / "workspace")
    prepare(root / "clips.csv", name="copies", workspace=workspace, workers=1, progress=False)
    return workspace


@pytest.fixture
def corpus(workspace: Workspace) -> Corpus:
    return Corpus.open(workspace.corpora / "copies")


def test_copies_are_found_however_they_are_wrapped(corpus: Corpus) -> None:
    sets = [tuple(corpus.ids[i] for i in found) for found in corpus.identical]
    assert sets == [("0.wav", "flac.flac"), ("1.wav", "padded.wav"), ("2.wav", "other.wav"), ("12.wav", "grouped.wav")]
    assert describe(corpus).duplicates == tuple(sets)


def test_silence_at_the_ends_is_left_aside_unless_nothing_else_is_there() -> None:
    sound, click = noise(0), np.zeros(800, np.int16)
    click[300] = 9000
    padded = np.concatenate([np.full(50, -3, np.int16), sound, np.zeros(1, np.int16)])
    assert np.array_equal(without_silence(padded, RATE), without_silence(sound, RATE))
    assert len(without_silence(click, RATE)) == 800, "two clicks at other places are not the same clip"
    for kept in (np.zeros(800, np.int16), np.full(2, -32768, np.int16)):
        assert len(without_silence(kept, RATE)) == len(kept)


def test_generated_splits_keep_copies_and_the_groups_that_they_join_on_one_side(corpus: Corpus) -> None:
    groups = undivided_groups(corpus)
    assert groups[0] == groups[20]
    assert groups[12] == groups[13] == groups[16] == groups[17] == groups[23], "g6 and g8 share a clip"
    assert groups[3] is None
    schemes: list[SplitScheme] = [KFold(k=4, fold=f, held_out="test", seed=s) for f in range(1, 5) for s in range(5)]
    schemes += [Grouped(seed=s) for s in range(10)] + [AutoSplit()]
    torn = 0
    for scheme in schemes[:-1]:
        split = scheme.assign(corpus)
        assert identical_on_two_sides(corpus, split) == []
        of = {int(i): side for side, clips in split.sides().items() for i in clips}
        assert len({of[i] for i in (12, 13, 16, 17, 23)}) == 1
        allowed = scheme.model_copy(update={"allow_duplicates": True}).assign(corpus)
        torn += bool(identical_on_two_sides(corpus, allowed))
    assert torn > 10, "without it they are divided by chance"


def test_a_corpus_without_copies_is_split_as_before(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(corpus), "identical", ())
    for scheme in (KFold(k=3), Grouped()):
        assert (
            scheme.assign(corpus).digest == scheme.model_copy(update={"allow_duplicates": True}).assign(corpus).digest
        )
    assert undivided_groups(corpus) is corpus.groups


def test_published_splits_with_copies_on_two_sides_are_refused_by_name(corpus: Corpus) -> None:
    said = r"2 sets of identical clips on two sides of the split, .*'0.wav' \(train\) = 'flac.flac' \(validation\), '12.wav' \(validation\) = "
    with pytest.raises(UserError, match=said + r"'grouped.wav' \(train\)\. .*data.split.allow_duplicates=true"):
        CrossValidation(fold=2).assign(corpus)
    split = CrossValidation(fold=2, allow_duplicates=True).assign(corpus)
    assert split_remarks(corpus, split)["split.duplicates"].startswith("2 sets of identical clips stand on")
    with pytest.raises(UserError, match="identical clips on two sides"):
        LeaveOneGroupOut(fold="g8").assign(grouped(corpus))


def grouped(corpus: Corpus) -> Corpus:
    made = Corpus.open(corpus.directory)
    made.groups = tuple(g or f"own{i}" for i, g in enumerate(corpus.groups))
    return made


def test_an_official_split_holds_out_whole_sets(corpus: Corpus) -> None:
    corpus.splits = ("train",) * len(corpus)
    for seed in range(5):
        assert identical_on_two_sides(corpus, Official(val_fraction=0.3, seed=seed).assign(corpus)) == []


def test_the_default_split_says_why_published_folds_were_not_taken(corpus: Corpus) -> None:
    scheme, why = choose_split(corpus)
    assert scheme.kind == "k_fold"
    assert "not folds: 'copies': " in why
    assert choose_split(corpus, allow_duplicates=True)[0].allow_duplicates
    asked = Experiment().override({"data.corpus": "copies", "data.split.allow_duplicates": True})
    assert asked.data.split == AutoSplit(allow_duplicates=True)
    assert resolve(asked, corpus).experiment.data.split.allow_duplicates


def test_what_was_begun_before_goes_on_as_recorded_or_is_refused(corpus: Corpus) -> None:
    scheme = KFold(k=4)
    former = scheme.model_copy(update={"allow_duplicates": True}).assign(corpus).digest
    assert former != scheme.assign(corpus).digest
    assert scheme.as_recorded(corpus, former).assign(corpus).digest == former
    assert scheme.as_recorded(corpus, scheme.assign(corpus).digest) == scheme
    assert scheme.as_recorded(corpus, None) == scheme
    experiment = Experiment().override({"data.corpus": "copies", "data.split": scheme})
    assert experiment.override({"data.split.allow_duplicates": False}).digest() == experiment.digest()
    with pytest.raises(UserError, match="begun when identical clips were not looked for"):
        resolve(experiment, corpus, rules=1)
    resolve(experiment.override({"data.split.allow_duplicates": True}), corpus, rules=1)


def test_declared_duplicates_are_said_without_the_corpus() -> None:
    allowed = Experiment().override({"data.split": "folds", "data.split.allow_duplicates": True})
    assert "data.split.allow_duplicates=true" in identical_declared(allowed.to_dict())
    assert identical_declared(Experiment().to_dict()) == identical_declared({}) == ""


def test_prepare_and_describe_say_copies_and_conflicting_labels(
    root: Path, workspace: Workspace, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    conflict = "1 set of identical clips has different labels: '2.wav' (a) = 'other.wav' (b). At most one of the labels is right"
    notes = corpus_notes(corpus)
    assert conflict in notes
    assert any("have clips in more than one of the published folds" in note for note in notes)
    described = call(capsys, workspace.root, "data", "describe", "copies")
    prepared = call(capsys, workspace.root, "data", "prepare", str(root / "clips.csv"), "--name", "copies")
    for note in notes:
        assert f"note: {note}" in prepared
        assert f"note: {note}" in described


def test_training_across_copies_is_refused_and_can_be_allowed(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--set", "data.corpus=copies", "--set", "data.split=cross_validation", "--set", "training.epochs=1"]  # fmt: skip
    refused = call(capsys, workspace.root, *words, code=2)
    assert "identical clips on two sides of the split" in refused
    assert "Traceback" not in refused
    shown = call(capsys, workspace.root, *words, "--allow-duplicates")
    assert "on more than one side of the split (data.split.allow_duplicates=true): figures may be optimistic" in shown


def test_what_is_kept_beside_the_samples_is_checked_and_goes_with_them(
    root: Path, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = prepare(root / "clips.csv", name="kept", workspace=tmp_path, workers=1, progress=False)
    [kept] = report.corpus.directory.glob("identical-*.json")
    expected = report.corpus.identical
    read: Callable[[Corpus, int], np.ndarray] = Corpus.samples_of
    looked: list[int] = []
    monkeypatch.setattr(Corpus, "samples_of", lambda self, i: (looked.append(i), read(self, i))[1])
    assert Corpus.open(report.corpus.directory).identical == expected
    assert looked == []
    for damage in (b"", b"12\n{}", kept.read_bytes().replace(b"[0,20]", b"[0,21]")):
        kept.write_bytes(damage)
        assert Corpus.open(report.corpus.directory).identical == expected
    assert looked != []
    kept.unlink()
    kept.mkdir()  # cannot be written
    assert Corpus.open(report.corpus.directory).identical == expected
    kept.rmdir()
    table = tmp_path / "fewer.csv"
    table.write_text("\n".join((root / "clips.csv").read_text().splitlines()[:-1]))
    again = prepare(table, name="kept", workspace=tmp_path, workers=1, progress=False, audio_root=root)
    assert len(again.corpus) == 23
    assert [p.name for p in again.corpus.directory.glob("identical-*.json")] == [
        f"identical-{again.corpus.digest[:16]}.json"
    ]
    assert len(again.corpus.identical) == 3


def test_a_checkpoint_of_another_split_is_not_continued(tmp_path: Path) -> None:
    experiment = Experiment()
    store = CheckpointStore(tmp_path / "run")
    store.save(Checkpoint({}, {"epoch": 0, "experiment": experiment.digest(), "split": "a" * 64}), None)
    with pytest.raises(
        UserError, match=r"trained on another split of the clips \(aaaaaaaaaaaa, now bbbbbbbbbbbb\).*--again"
    ):
        loop._take_up(experiment, cast(Any, None), "b" * 64, store, cast(Any, None))
