"""Groups that file names suggest: known namings are seen, plain numbers and classes are not, and nothing is taken in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.data.corpus import Corpus
from audio_cls.data.making import prepare
from audio_cls.data.name_groups import suggest_groups
from audio_cls.data.remarks import split_warnings
from audio_cls.data.splits import CrossValidation, KFold
from tests.commands import call
from tests.conftest import write_tones

WORDS = ("jackson", "nicolas", "theo", "yweweler")
SUGGESTED = {
    "UrbanSound8K": (lambda i: f"fold{i % 3}/{100032 + i % 7}-{i % 10}-0-{i}.wav", 7, "UrbanSound8K"),
    "ESC-50": (lambda i: f"audio/{1 + i % 5}-{17150 + i % 9}-{'ABC'[i % 3]}-{i % 10}.ogg", 9, "ESC-50"),
    "Speech Commands": (lambda i: f"yes/{0xA0B1C2D0 + i % 6:08x}_nohash_{i // 6}.wav", 6, "Speech Commands"),
    "RAVDESS": (lambda i: f"03-01-0{i % 8}-01-02-01-{1 + i % 12:02d}.wav", 12, "RAVDESS"),
    "Freesound's downloads": (lambda i: f"{4000 + i}__user_{'abc'[i % 3]}__dog-bark.wav", 3, "uploader"),
    "Freesound ids": (lambda i: f"{102305 + i % 8}_{i // 8}.wav", 8, "Freesound id"),
    "speakers": (lambda i: f"audio/spk{i % 4:02d}_{i}.wav", 4, "speaker"),
    "speakers in the middle": (lambda i: f"{i:03d}_M{i % 5:02d}_x.wav", 5, "part 2 of the name"),
    "names of speakers": (lambda i: f"{i % 10}_{WORDS[i // 10 % 4]}_{i // 40}.wav", 4, "part 2 of the name"),
    "one file": (lambda i: f"day{i // 12}.wav", 5, "cut from one file"),
}
NOT = {
    "numbers": lambda i: f"{i:04d}.wav",
    "numbered words": lambda i: f"clip_{i}.wav",
    "the class and a number": lambda i: f"{'ab'[i % 2]}/{'ab'[i % 2]}_{i // 2}.wav",
    "class and number in one": lambda i: f"{['hum', 'hiss'][i % 2]}{i}.wav",
    "takes": lambda i: f"{i // 3:03d}_take{i % 3}.wav",
    "channels": lambda i: f"{i // 2:03d}_{['left', 'right'][i % 2]}.wav",
    "dates": lambda i: f"20210304_{120000 + i}.wav",
    "hashes": lambda i: f"{(i * 2654435761) % 2**32:08x}.wav",
    "splits": lambda i: f"{('train', 'test', 'val')[i % 3]}_x{i}.wav",
    "clip numbers": lambda i: f"a_clip{i}.wav",
    "uneven": lambda i: "_".join("abcdef"[: 1 + i % 5]) + f"{i}.wav",
}


@pytest.mark.parametrize("naming", SUGGESTED)
def test_namings_that_suggest_groups(naming: str) -> None:
    name, n, said = SUGGESTED[naming]
    found = suggest_groups([name(i) for i in range(60)], [i % 10 for i in range(60)])
    assert found is not None
    assert (found.n, said in found.what) == (n, True)
    assert None not in found.groups


@pytest.mark.parametrize("naming", NOT)
@pytest.mark.parametrize("n", [1, 2, 60])
def test_namings_that_do_not(naming: str, n: int) -> None:
    assert suggest_groups([NOT[naming](i) for i in range(n)], ["ab"[i % 2] for i in range(n)]) is None


def test_groups_that_are_the_classes_by_another_name_are_none() -> None:
    assert suggest_groups([f"spk{i % 2}_{i}.wav" for i in range(40)], [i % 2 for i in range(40)]) is None
    assert suggest_groups([f"spk{i % 4}_{i}.wav" for i in range(40)], [i % 2 for i in range(40)]) is not None


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen clips of three classes, named by six speakers; no groups are declared."""
    root = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    for i in range(18):
        folder = root / "sounds" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        sf.write(folder / f"spk{i // 3:02d}_{i}.wav", 0.1 * rng.standard_normal(2400), 8000)
    return root / "sounds"


def test_they_are_said_and_taken_when_asked(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "prepare", str(source), "--name", "names", "--workers", "1"]
    said = "note: no groups are declared, but the names of the files suggest 6 (a speaker or recording; 'spk00' has 3 clips)"
    assert said in call(capsys, tmp_path, *words)
    assert said in call(capsys, tmp_path, "data", "describe", "names")
    plain = Corpus.open(tmp_path / "corpora" / "names")
    assert set(plain.groups) == {None}
    [warning] = split_warnings(plain, KFold(k=3))
    assert "suggest 6" in warning
    assert "of which stand on more than one side of this random split" in warning
    assert "--groups-from-names" in warning
    plain.folds = 1 + np.arange(18) % 3
    assert split_warnings(plain, CrossValidation(fold=1)) == [], "published folds are somebody's choice"

    assert said not in call(capsys, tmp_path, *words, "--groups-from-names")
    taken = Corpus.open(tmp_path / "corpora" / "names")
    assert {g: taken.groups.count(g) for g in set(taken.groups)} == {f"spk{k:02d}": 3 for k in range(6)}
    assert taken.digest != plain.digest
    assert split_warnings(taken, KFold(k=3)) == []
    assert "--group-pattern" in taken._repair()
    call(capsys, tmp_path, *words)
    assert Corpus.open(tmp_path / "corpora" / "names").digest == plain.digest


def test_a_pattern_of_ones_own(source: Path, tmp_path: Path) -> None:
    made = prepare(source, name="odd", workspace=tmp_path, groups_from_names=r"spk\d(\d)_", workers=1, progress=False)
    assert set(made.corpus.groups) == set("012345")
    whole = prepare(source, name="odd", workspace=tmp_path, groups_from_names=r"^[ab]", workers=1, progress=False)
    assert set(whole.corpus.groups) == {"a", "b", None}
    assert whole.decoded == 0


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (True, "suggest no groups, such as 'audio/hum0.wav'. Say which part of the name is the group: --group-pattern"),
        ("(", r"--group-pattern '\(': not a regular expression"),
        ("zzz", "--group-pattern 'zzz' fits no name, such as 'audio/hum0.wav'"),
    ],
)
def test_wishes_that_cannot_be_met(tmp_path: Path, wanted: bool | str, said: str) -> None:
    table = write_tones(tmp_path / "tones", n_per_class=2, seconds=0.2)
    with pytest.raises(UserError, match="6 of 6 clips name their group already"):
        prepare(table, name="n", workspace=tmp_path, groups_from_names=wanted, progress=False)
    rows = [line.rpartition(",")[0] for line in table.read_text().splitlines()]
    table.write_text("\n".join(rows))
    with pytest.raises(UserError, match=said):
        prepare(table, name="n", workspace=tmp_path, groups_from_names=wanted, progress=False)
    assert not Workspace(tmp_path).corpora.exists()
