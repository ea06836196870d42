"""Published layouts, each on a small tree of exactly its shape: what is read, and what its defects say."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest

from audio_cls.core.errors import UserError
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.default_split import choose_split
from audio_cls.data.list_split import Lists
from audio_cls.data.packing import prepare
from audio_cls.data.splits import Official
from tests.data import published_layouts as layouts
from tests.data.layouts import write_pictures


def packed(root: Path, folder: Path, **options: object) -> Corpus:
    return prepare(sources.read(root, **options), folder, workers=1, on_bad="refuse", sample_rate=8000).corpus


# -- UrbanSound8K -------------------------------------------------------------------------------------------------


def test_urbansound8k(tmp_path: Path) -> None:
    root = layouts.urbansound8k(tmp_path / "UrbanSound8K")
    layouts.wav(root / "audio" / "fold2" / "1-0-0-0.wav")
    made = sources.read(root)
    assert made.classes == ("car_horn", "children_playing", "dog_bark")  # by classID
    assert all(clip.start is None and clip.end is None for clip in made.clips)
    assert Counter(clip.group for clip in made.clips)["100263"] == 2
    assert made.extra["salience"] == (
        "foreground", "foreground", "background", "background", "background", "foreground",
    )  # fmt: skip
    assert "1 audio files that the table does not name were left out (fold2/1-0-0-0.wav, ...)" in made.note
    corpus = packed(root, tmp_path / "corpus")
    assert corpus.seconds.tolist() == pytest.approx([0.3] * 6, abs=0.1)  # whole slices, whatever start and end say
    assert corpus.folds.tolist() == [5, 5, 5, 10, 7, 1]
    assert Corpus.open(tmp_path / "corpus").extra["salience"][0] == "foreground"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1-0-0-0.wav,1,0,1,3,1,0,air_conditioner", r"UrbanSound8K.csv, row 8: salience is '3', not 1 \(foreground\)"),
        ("1-0-0-0.wav,1,0,1,1,x,0,air_conditioner", r"row 8: fold is 'x', not a whole number"),
        ("1-0-0-0.wav,2,0,1,1,1,0,air_conditioner", r"row 8: the file name '1-0-0-0.wav' is of another fsID"),
        ("1-3-0-0.wav,1,0,1,1,1,3,siren", r"row 8: class 3 is 'siren' here and 'dog_bark' in row 2"),
        ("1-4-0-0.wav,1,0,1,1,1,4,dog_bark", r"row 8: 'dog_bark' is class 4 here and 3 in row 2"),
        ("1-0-0-0.wav,1,0,1,1,1,0", r"row 8: 7 cells, the header has 8"),
    ],
)
def test_urbansound8k_faults_name_their_row(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.read(layouts.urbansound8k(tmp_path, (*layouts.URBAN_ROWS, row)))


def test_urbansound8k_missing_file_and_wrong_folder(tmp_path: Path) -> None:
    row = "1-0-0-0.wav,1,0,1,1,1,0,air_conditioner"
    root = layouts.urbansound8k(tmp_path / "set", (*layouts.URBAN_ROWS, row))
    with pytest.raises(UserError, match=r"fold1/1-0-0-0.wav \(row 8\): the file is missing"):
        packed(root, tmp_path / "corpus")
    with pytest.raises(
        UserError, match=r"is a part of a data set whose layout \(urbansound8k\) is read from .*set: give"
    ):
        sources.read(root / "audio")


# -- FSD50K -------------------------------------------------------------------------------------------------------


def test_fsd50k(tmp_path: Path) -> None:
    root = layouts.fsd50k(tmp_path / "set")
    made = sources.read(root)
    assert (made.task, len(made.classes), len(made)) == ("multilabel", 8, 6)
    assert Counter(clip.split for clip in made.clips) == {"train": 3, "validation": 1, "test": 2}
    assert made.clips[0].labels == ("Keyboard_(musical)", "Musical_instrument", "Music")
    assert {clip.group for clip in made.clips if clip.split == "test"} == {"eval_user0", "eval_user1"}
    assert made.families["Hiss"] == ("Animal", "Source-ambiguous sounds")
    assert made.families["Keyboard_(musical)"] == ("Music",)
    corpus = packed(root, tmp_path / "corpus")
    assert corpus.families == made.families
    assert len(sources.read(root, parts="eval")) == 2


def test_fsd50k_without_ontology_and_metadata(tmp_path: Path) -> None:
    root = layouts.fsd50k(tmp_path / "set", ontology=False)
    (root / "FSD50K.metadata" / "dev_clips_info_FSD50K.json").unlink()
    made = sources.read(root)
    assert "no ontology.json beside the data" in made.note
    assert "dev_clips_info_FSD50K.json is missing: its clips name no uploader" in made.note
    other = layouts.text(tmp_path / "mine.json", json.dumps(layouts.ONTOLOGY))
    assert sources.read(root, ontology=str(other)).families["Purr"] == ("Animal",)
    short = layouts.text(tmp_path / "short.json", json.dumps(layouts.ONTOLOGY[3:]))
    with pytest.raises(UserError, match=r"2 classes are not in this ontology: Music \(/m/04rlf\), Animal"):
        sources.read(root, ontology=str(short))
    broken = layouts.text(tmp_path / "broken.json", json.dumps(layouts.ONTOLOGY[:1]))
    with pytest.raises(UserError, match=r"node '/m/0jbk' \(Animal\) names the child '/m/068hy', which is not there"):
        sources.read(root, ontology=str(broken))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("9,Purrr,/m/02yds9,train", r"dev.csv, row 6: the label 'Purrr' is not in vocabulary.csv. Did you mean 'Purr'"),
        ("9,Purr,/m/01yrx,train", r"row 6: the mids '/m/01yrx' are not those of the labels 'Purr'"),
        ("9,Purr,/m/02yds9,test", r"row 6: the split 'test' is neither train nor val"),
        ("9,Purr,/m/02yds9,train", r"row 6: '9' has no entry in dev_clips_info_FSD50K.json"),
    ],
)
def test_fsd50k_faults_name_their_row(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.read(layouts.fsd50k(tmp_path, dev=(*layouts.FSD_DEV, row)))


def test_fsd50k_of_which_a_part_is_missing(tmp_path: Path) -> None:
    root = layouts.fsd50k(tmp_path)
    for file in (root / "FSD50K.eval_audio").iterdir():
        file.unlink()
    (root / "FSD50K.eval_audio").rmdir()
    with pytest.raises(
        UserError, match=r"FSD50K.eval_audio: this folder is missing, .* names 2 clips .* --set parts=dev"
    ):
        sources.read(root)
    assert len(sources.read(root, parts="dev")) == 4
    layouts.text(root / "FSD50K.ground_truth" / "vocabulary.csv", "0,Music,/m/04rlf", "2,Cat,/m/01yrx")
    with pytest.raises(UserError, match=r"vocabulary.csv, row 2: index '2', expected 1"):
        sources.read(root)


# -- TUT Acoustic Scenes 2017 -------------------------------------------------------------------------------------


def test_tut2017(tmp_path: Path) -> None:
    root = layouts.tut2017(tmp_path / "set")
    made = sources.read(root)
    assert (len(made), made.classes) == (24, layouts.TUT_SCENES)
    assert sorted(made.lists) == [1, 2, 3, 4]
    assert len(made.lists[2]["validation"]) == 8  # two clips are evaluated in two folds
    assert "2 clips with failures of the microphone (error.txt) are kept" in made.note
    corpus = packed(root, tmp_path / "corpus")
    scheme, why = choose_split(corpus)
    assert (scheme, why) == (Lists(fold=1), "the lists of its 4 folds")
    third = Lists(fold=3).assign(corpus)
    assert [len(side) for side in third.sides().values()] == [16, 6, 0]  # two clips are in neither list
    tested = Lists(fold=2, held_out="test").assign(corpus)
    assert len(tested.test) == 8
    assert len(tested.validation) > 0
    left = sources.read(root, errors="leave_out")
    assert len(left) == 22
    again = packed(root, tmp_path / "corpus", errors="leave_out")
    assert Lists(fold=1).assign(again).validation.max() < 22
    assert again.digest != corpus.digest


def test_tut2017_with_its_evaluation_set(tmp_path: Path) -> None:
    root = layouts.tut2017(tmp_path / "dev")
    evaluation = layouts.tut2017_evaluation(tmp_path / "eval")
    corpus = packed(root, tmp_path / "corpus", evaluation=str(evaluation))
    assert [len(side) for side in Lists(fold=1).assign(corpus).sides().values()] == [18, 6, 6]
    assert {clip.split for clip in sources.read(evaluation).clips} == {"test"}
    with pytest.raises(UserError, match=r"the evaluation set without labels .* audio-cls predict RUN"):
        sources.read(layouts.tut2017_evaluation(tmp_path / "bare", labelled=False))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("audio/zzz.wav\tbeach", r"fold1_train.txt, row 19: it names 'audio/zzz.wav', and there is no such clip"),
        ("audio/b002_0_10.wav\tbeech", r"row 19: .* is 'beech' here and 'beach' in meta.txt. Did you mean 'beach'"),
        ("audio/b002_0_10.wav", r"row 19: 1 cells, needed are 2: file, scene"),
        ("audio/b001_0_10.wav\tbeach", r"fold1_evaluate.txt, row 1: .* is in the training list of this fold too"),
    ],
)
def test_tut2017_faults_name_their_row(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.read(layouts.tut2017(tmp_path, broken=(line,)))


def test_tut2017_missing_list_and_unknown_error(tmp_path: Path) -> None:
    root = layouts.tut2017(tmp_path)
    layouts.text(root / "error.txt", "audio/nobody.wav\t1\t2")
    with pytest.raises(UserError, match=r"error.txt, row 1: it names 'audio/nobody.wav'"):
        sources.read(root)
    (root / "evaluation_setup" / "fold3_train.txt").unlink()
    with pytest.raises(UserError, match=r"fold3_train.txt is missing"):
        sources.read(root)


# -- Speech Commands ----------------------------------------------------------------------------------------------


def test_speech_commands(tmp_path: Path) -> None:
    root = layouts.speech_commands(tmp_path / "set")
    made = sources.read(root)
    assert (len(made), made.classes) == (15, ("backward", "no", "yes"))
    assert Counter(clip.split for clip in made.clips) == {"train": 9, "validation": 3, "test": 3}
    assert {clip.group for clip in made.clips} == set(layouts.SPEAKERS)
    assert "_background_noise_ (long recordings, no words) was left out" in made.note
    assert [len(side) for side in Official().assign(packed(root, tmp_path / "corpus")).sides().values()] == [9, 3, 3]
    layouts.text(
        root / "testing_list.txt", "yes/ffd2ba2f_nohash_0.wav", "yes/none_nohash_0.wav", "no/b69002d4_nohash_0.wav"
    )
    with pytest.raises(UserError) as error:
        sources.read(root)
    assert "testing_list.txt, row 2: it names 'yes/none_nohash_0.wav', and there is no such clip" in str(error.value)
    assert "row 3: 'no/b69002d4_nohash_0.wav' is in validation_list.txt too" in str(error.value)


# -- GTZAN --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "suffix"), [("genres_original", "wav"), ("genres", "au"), (".", "au")])
def test_gtzan(tmp_path: Path, folder: str, suffix: str) -> None:
    made = sources.read(layouts.gtzan(tmp_path, folder, suffix))
    assert (len(made), len(made.classes)) == (29, 10)
    assert f"jazz.00054.{suffix}, known to be damaged in most copies, was left out" in made.note
    assert "30 of 1000 files are there" in made.note
    assert "no fault-filtered lists" in made.note


def test_gtzan_with_fault_filtered_lists(tmp_path: Path) -> None:
    root = layouts.gtzan(tmp_path / "set", lists=True)
    corpus = packed(root, tmp_path / "corpus")
    assert [len(side) for side in Official().assign(corpus).sides().values()] == [10, 10, 9]
    layouts.text(root / "valid_filtered.txt", "blues/blues.00099.wav", "blues/blues.00000.wav")
    with pytest.raises(UserError, match=r"valid_filtered.txt, row 1: it names 'blues/blues.00099'"):
        sources.read(root)


# -- AudioSet's embeddings ----------------------------------------------------------------------------------------


def test_audioset(tmp_path: Path) -> None:
    root = layouts.audioset(tmp_path / "set")
    made = sources.read(root)
    assert made.classes == ("Speech", "Male speech, man speaking", "Music")
    assert {c.id: (c.labels, c.split) for c in made.clips} == {
        "bal_train/aBcdefghij0@0": (("Speech", "Male speech, man speaking"), "train"),
        "bal_train/aBxxxxxxxx1@0": ((), "train"),
        "bal_train/abcdefghij2@0": (("Music",), "train"),
        "eval/-0zzzzzzzz4@0": (("Music", "Speech", "Male speech, man speaking"), "test"),
    }
    assert len(sources.read(root, train="both")) == 5
    assert (
        len(
            sources.read(
                root / "audioset_v1_embeddings", train="unbalanced", class_map=str(root / "class_labels_indices.csv")
            )
        )
        == 2
    )
    corpus = prepare(made, tmp_path / "corpus", workers=1, on_bad="refuse").corpus
    assert corpus.lengths.tolist() == [10, 4, 10, 9]  # clips of fewer than ten rows are kept
    assert (corpus.payload.domain, corpus.payload.row) == ("sequence", (128,))


def test_audioset_defects_are_named_by_file_and_record(tmp_path: Path) -> None:
    root = layouts.audioset(tmp_path)
    file = root / "audioset_v1_embeddings" / "bal_train" / "aB.tfrecord"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"aB.tfrecord, record 2 \(at byte [\d,]+\): cut short"):
        sources.read(root)
    file.write_bytes(whole[:50] + b"\xff" + whole[51:])
    with pytest.raises(
        UserError, match=r"aB.tfrecord, record 1 \(at byte 0\): damaged: its data does not match its checksum"
    ):
        sources.read(root)
    file.write_bytes(whole)
    layouts.text(root / "class_labels_indices.csv", *layouts.CLASS_MAP[:3])
    with pytest.raises(
        UserError, match=r"ab.tfrecord, record 1 \(abcdefghij2\): label 4 is not in .*class_labels_indices.csv"
    ):
        sources.read(root)
    (root / "class_labels_indices.csv").unlink()
    with pytest.raises(UserError, match=r"class_labels_indices.csv is missing .* --set class_map=FILE"):
        sources.read(root)


# -- audio in tables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [False, True])
def test_urbansound8k_in_tables(tmp_path: Path, saved: bool) -> None:
    root = layouts.urban_tables(tmp_path / "set", saved)
    made = sources.read(root)
    assert (made.name, made.classes) == ("urbansound8k", ("car_horn", "children_playing", "dog_bark"))  # by classID
    assert [c.id for c in made.clips] == [row.split(",")[0] for row in layouts.URBAN_ROWS]
    assert {c.split for c in made.clips} == {None if saved else "train"}
    corpus = packed(root, tmp_path / "corpus")
    assert corpus.folds.tolist() == [5, 5, 5, 10, 7, 1]
    assert corpus.groups[1] == corpus.groups[2] == "100263"
    assert corpus.extra["salience"] == [1, 1, 2, 2, 2, 1]
    assert corpus.seconds.tolist() == pytest.approx([0.3] * 6)


def test_tables_with_defects(tmp_path: Path) -> None:
    root = layouts.urban_tables(tmp_path / "set", missing=1)
    with pytest.raises(UserError, match=r"train-00001-of-00002.parquet: row 1: its audio is missing \(null\)"):
        packed(root, tmp_path / "corpus")
    with pytest.raises(UserError, match=r"no column 'sound' \(--set audio=NAME\).* It has audio, slice_file_name"):
        sources.read(root, audio="sound")
    with pytest.raises(UserError, match=r"no column 'clas' .*Did you mean 'class'"):
        sources.read(root, label="clas")
    (root / "data" / "train-00001-of-00002.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(UserError, match=r"train-00001-of-00002.parquet: cannot be read as parquet"):
        sources.read(root)


def test_class_numbers_have_names(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    audio = pa.array([{"bytes": layouts.audio_bytes(i), "path": None} for i in range(3)])

    def write(labels: list[int | None]) -> Path:
        table = pa.table({"audio": audio, "label": labels}).replace_schema_metadata({"huggingface": json.dumps(info)})
        pq.write_table(table, tmp_path / "clips.parquet")
        return tmp_path / "clips.parquet"

    made = sources.read(write([1, 0, 1]))
    assert (made.classes, [c.labels for c in made.clips]) == (("cat", "dog"), [("dog",), ("cat",), ("dog",)])
    with pytest.raises(
        UserError, match=r"clips.parquet, row 1: label is 2, there are 2 classes\n.*row 2: label is None, not a label"
    ):
        sources.read(write([1, 2, None]))


# -- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16"])
def test_pictures(tmp_path: Path, mode: str) -> None:
    root = write_pictures(tmp_path / "set", n=6, mode=mode)[0].parent.parent
    made = sources.read(root)
    assert (made.classes, len(made)) == (("high", "low"), 6)
    assert "time runs to the right: check it" in made.note
    corpus = prepare(made, tmp_path / "corpus", workers=1, on_bad="refuse").corpus
    assert corpus.payload.row == (1 if mode == "I;16" else 3, 32)
    assert corpus.lengths.tolist() == [40] * 6
    turned = prepare(sources.read(root, time="down", channels=1), tmp_path / "turned", workers=1).corpus
    assert (turned.payload.row, turned.lengths[0]) == ((1, 40), 32)


def test_pictures_with_splits_and_defects(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_pictures(tmp_path / "set" / part, n=4)
    made = sources.read(tmp_path / "set")
    assert Counter(c.split for c in made.clips) == {"train": 4, "test": 4}
    first = made.clips[0].path
    first.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"is no PNG or JPEG picture"):
        prepare(sources.read(tmp_path / "set"), tmp_path / "corpus", workers=1, on_bad="refuse")
    (tmp_path / "set" / "train" / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: a class folder without pictures"):
        sources.read(tmp_path / "set")


def test_pictures_of_other_sizes_are_said(tmp_path: Path) -> None:
    write_pictures(tmp_path / "set", n=4)
    write_pictures(tmp_path / "set", n=1, size=(80, 64))
    assert (
        "1 of 4 pictures looked at are not 32 pixels across time (such as 64): resized"
        in sources.read(tmp_path / "set").note
    )


# -- parts that are missing, which were once read in silence ------------------------------------------------------


@pytest.mark.parametrize("saved", [False, True])
def test_a_missing_shard_is_named(tmp_path: Path, saved: bool) -> None:
    root = layouts.urban_tables(tmp_path / "set", saved)
    next(root.glob("**/*00001-of-00002*")).unlink()
    with pytest.raises(UserError, match=r"-00001-of-00002\.\w+: missing, by the names .* --set partial=true"):
        sources.read(root)
    assert len(sources.read(root, partial=True)) == 4


def test_tut2017_test_lists_and_the_map_of_the_evaluation_set(tmp_path: Path) -> None:
    root = layouts.tut2017(tmp_path / "dev")
    evaluation = layouts.tut2017_evaluation(tmp_path / "eval")
    originals = "".join(f"audio/{i}.wav\taudio/e{i // 2:03d}_0_10.wav\n" for i in range(6))
    (evaluation / "evaluation_setup" / "map.txt").write_text(originals, encoding="utf-8")
    groups = [clip.group for clip in sources.read(evaluation).clips]
    assert groups == ["evaluation/e000", "evaluation/e000", "evaluation/e001", "evaluation/e001", "evaluation/e002", "evaluation/e002"]  # fmt: skip
    layouts.text(root / "evaluation_setup" / "fold1_test.txt", "audio/b002_0_10.wav")
    with pytest.raises(UserError, match=r"fold1_test.txt, row 1: 'audio/b002_0_10.wav' is not in fold1_evaluate.txt"):
        sources.read(root)


def test_speech_commands_of_which_a_part_is_missing(tmp_path: Path) -> None:
    root = layouts.speech_commands(tmp_path / "set")
    (root / "zero").mkdir()
    layouts.wav(root / "yes" / "me.wav")
    note = sources.read(root).note
    assert "1 files without _nohash_ in their names (yes/me.wav, ...)" in note
    assert "1 folders without WAV files were left out: zero" in note
    (root / "testing_list.txt").unlink()
    with pytest.raises(UserError, match=r"testing_list.txt is missing"):
        sources.read(root)


def test_a_missing_genre_and_an_empty_record_file(tmp_path: Path) -> None:
    root = layouts.gtzan(tmp_path / "gtzan")
    shutil.rmtree(root / "genres_original" / "blues")
    with pytest.raises(UserError, match=r"GTZAN has ten genres, and folders are missing: blues"):
        sources.read(root)
    root = layouts.audioset(tmp_path / "audioset")
    (root / "audioset_v1_embeddings" / "bal_train" / "aB.tfrecord").write_bytes(b"")
    with pytest.raises(UserError, match=r"aB.tfrecord: empty: it holds no records"):
        sources.read(root)


def test_the_repair_of_a_damaged_corpus_names_the_options_of_its_layout(tmp_path: Path) -> None:
    write_pictures(tmp_path / "set", 4)
    manifest = sources.read(tmp_path / "set", time="left", columns_per_second=62.5)
    assert manifest.options == {"time": "left", "columns_per_second": "62.5"}
    corpus = prepare(manifest, tmp_path / "corpus", workers=1).corpus
    with open(corpus.samples_path, "r+b") as file:
        file.write(bytes(100))
    with pytest.raises(UserError, match=r"repair it with: audio-cls data prepare \S+ --name corpus (.*)") as error:
        Corpus.open(tmp_path / "corpus").verify()
    words = shlex.split(str(error.value).split(" --name corpus ")[1])
    assert sorted(words[1::2]) == ["columns_per_second=62.5", "time=left"]
    assert words[::2] == ["--set", "--set"]
