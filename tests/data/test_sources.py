"""Readers: each published layout on a small tree of its own shape, detection, and faults by file and row."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_cls.core.errors import UserError
from audio_cls.data import sources
from audio_cls.data.manifest import Manifest
from audio_cls.data.packing import prepare
from audio_cls.data.sources.synthetic import Synthetic, generate
from tests.data import published_layouts as layouts
from tests.data.layouts import write_pictures


def wav(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, np.random.default_rng(len(str(path))).uniform(-0.5, 0.5, 2000), 8000)
    return path


ESC_HEAD = "filename,fold,target,category,esc10,src_file,take"
ESC_ROWS = [
    "1-100-A-0.wav,1,0,dog,True,100,A",
    "1-100-B-0.wav,1,0,dog,True,100,B",
    "2-200-A-10.wav,2,10,rain,True,200,A",
    "3-300-A-7.wav,3,7,hen,False,300,A",
]


def esc50(root: Path, rows: list[str] | None = None, head: str = ESC_HEAD) -> Path:
    for row in ESC_ROWS:
        wav(root / "audio" / row.split(",")[0])
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "esc50.csv").write_text("\n".join([head, *(ESC_ROWS if rows is None else rows)]) + "\n")
    return root


def folders(root: Path, prefixes: tuple[str, ...] = ("",)) -> Path:
    for prefix in prefixes:
        for name in ("dog", "cat"):
            for i in (1, 2, 10):
                wav(root / prefix / name / f"s{i % 2}" / f"take{i}.wav")
    return root


def table(root: Path, text: str, name: str = "meta.csv") -> Path:
    for stem in "abc":
        wav(root / "audio" / f"{stem}.wav")
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def synthetic(root: Path) -> Path:
    return generate(Synthetic(n_clips=10, clip_seconds=0.3, sample_rate=8000), root, workers=1)


TREES = {
    "audio_table": lambda root: layouts.urban_tables(root),
    "audioset": layouts.audioset,
    "pictures": lambda root: write_pictures(root, n=6)[0].parent.parent,
    "fsd50k": layouts.fsd50k,
    "gtzan": lambda root: layouts.gtzan(root),
    "speech_commands": layouts.speech_commands,
    "tut2017": lambda root: layouts.tut2017(root),
    "urbansound8k": lambda root: layouts.urbansound8k(root),
    "esc50": lambda root: esc50(root),
    "audio_folder": lambda root: folders(root),
    "csv": lambda root: table(root, "path,label\naudio/a.wav,x\naudio/b.wav,y\n").parent,
    "synthetic": lambda root: synthetic(root),
}


@pytest.mark.parametrize("layout", sources.LAYOUTS)
def test_every_layout_is_detected_read_and_prepared(tmp_path: Path, layout: str) -> None:
    root = TREES[layout](tmp_path / "set")
    assert sources.detect(root) == layout
    manifest = sources.read(root)
    assert manifest == sources.read(root, layout)
    assert len({c.id for c in manifest.clips}) == len(manifest)
    assert all(c.path.is_file() for c in manifest.clips)
    assert {label for c in manifest.clips for label in c.labels} <= set(manifest.classes)
    assert manifest.source.startswith(layout)
    report = prepare(manifest, tmp_path / "corpus", workers=1, on_bad="refuse")
    assert report.n == len(manifest)
    column = {name: k for k, name in enumerate(manifest.classes)}
    in_order = [replace(c, labels=tuple(sorted(c.labels, key=column.__getitem__))) for c in manifest.clips]
    assert list(report.corpus.clips) == in_order


@pytest.mark.parametrize("layout", sources.LAYOUTS)
def test_every_layout_refuses_a_wrong_option_and_an_empty_folder(tmp_path: Path, layout: str) -> None:
    with pytest.raises(UserError, match=r"has no option 'subst'. Allowed: "):
        sources.read(TREES[layout](tmp_path / "set"), layout, subst=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        sources.read(tmp_path / "empty", layout)


def test_unknown_paths_and_layouts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        sources.read(tmp_path / "no")
    with pytest.raises(UserError, match=r"'esc5' is no layout. Allowed: .*synthetic.* Did you mean 'esc50'"):
        sources.read(tmp_path, "esc5")
    with pytest.raises(UserError, match=r"no known layout. Looked for .*meta/esc50.csv \(esc50\), FSD50K.ground_truth"):
        sources.read(tmp_path)


# -- esc50 --------------------------------------------------------------------------------------------------------


def test_esc50(tmp_path: Path) -> None:
    made = sources.read(esc50(tmp_path))
    assert (made.name, made.task, made.classes) == ("esc50", "multiclass", ("dog", "hen", "rain"))  # by target
    first = made.clips[0]
    assert (first.id, first.labels, first.fold, first.group, first.row) == ("1-100-A-0.wav", ("dog",), 1, "100", 2)
    ten = sources.read(tmp_path, subset="esc10")
    assert (ten.name, ten.classes, len(ten)) == ("esc10", ("dog", "rain"), 3)
    with pytest.raises(UserError, match=r"subset='esc11': Allowed: all, esc10. Did you mean 'esc10'"):
        sources.read(tmp_path, subset="esc11")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x.wav,one,0,dog,True,9,A", r"esc50.csv, row 6: fold 'one'"),
        ("x.wav,10000000000,0,dog,True,9,A", r"esc50.csv, row 6: fold '10000000000'"),
        ("x.wav,1,0,dog,yes,9,A", r"row 6: esc10 is 'yes'"),
        ("x.wav,1,5,dog,True,9,A", r"row 6: 'dog' has target 5 here and 0 in row 2"),
        ("x.wav,1,0,cat,True,9,A", r"row 6: target 0 is 'cat' here and 'dog' in row 2"),
        ("x.wav,1,0,dog,True,9", r"row 6: 6 cells, the header has 7"),
        (",1,0,dog,True,9,A", r"row 6: filename or category is empty"),
    ],
)
def test_esc50_faults_name_their_row(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.read(esc50(tmp_path, [*ESC_ROWS, row]))


def test_esc50_without_a_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"esc50.csv, row 1: the column 'src_file' is missing"):
        sources.read(esc50(tmp_path, head=ESC_HEAD.replace("src_file", "source")))


def test_real_esc10(esc10_root: Path) -> None:
    made = sources.read(esc10_root, subset="esc10")
    assert (made.name, len(made), len(made.classes)) == ("esc10", 400, 10)
    assert set(Counter(c.labels[0] for c in made.clips).values()) == {40}
    assert Counter(c.fold for c in made.clips) == dict.fromkeys(range(1, 6), 80)
    assert all(c.path.is_file() for c in made.clips)
    folds: dict[str | None, set[int | None]] = {}
    for c in made.clips:
        folds.setdefault(c.group, set()).add(c.fold)
    assert all(len(f) == 1 for f in folds.values())


# -- a folder per class -------------------------------------------------------------------------------------------


def test_audio_folder(tmp_path: Path) -> None:
    folders(tmp_path / "pets")
    (tmp_path / "pets" / "dog" / "notes.txt").write_text("x")
    wav(tmp_path / "pets" / ".cache" / "x.wav")
    made = sources.read(tmp_path / "pets", group_pattern=r"(\w+)/s\d")
    assert (made.name, made.classes, len(made)) == ("pets", ("cat", "dog"), 6)
    assert [c.id for c in made.clips][:3] == ["cat/s0/take2.wav", "cat/s0/take10.wav", "cat/s1/take1.wav"]
    assert {c.group for c in made.clips} == {"cat", "dog"}
    assert "1 files" in made.note


def test_audio_folder_with_splits(tmp_path: Path) -> None:
    made = sources.read(folders(tmp_path, ("train", "val", "test")))
    assert made.classes == ("cat", "dog")
    assert Counter(c.split for c in made.clips) == {"train": 6, "validation": 6, "test": 6}


def test_audio_folder_faults(tmp_path: Path) -> None:
    folders(tmp_path / "a", ("train", "odd"))
    with pytest.raises(UserError, match="'odd' stands beside"):
        sources.read(tmp_path / "a")
    (folders(tmp_path / "b") / "bird").mkdir()
    with pytest.raises(UserError, match=r"bird: a class folder without audio"):
        sources.read(tmp_path / "b")
    wav(folders(tmp_path / "c") / "stray.wav")
    with pytest.raises(UserError, match=r"stray.wav: lies beside"):
        sources.read(tmp_path / "c")
    with pytest.raises(UserError, match="not a regular expression"):
        sources.read(folders(tmp_path / "d"), group_pattern="(")


# -- csv ----------------------------------------------------------------------------------------------------------


def test_csv_with_every_column(tmp_path: Path) -> None:
    text = (
        "id,path,label,fold,split,group,start,end,comment\n"
        'k1,audio/a.wav,"dog, small",1,train,g1,0.0,0.1,"two\nlines"\n'
        "k2,audio/a.wav,cat,2,val,g1,0.1,,\n"
        "\n"
        "k3,audio/b.wav,cat,,eval,,,,\n"
    )
    made = sources.read(table(tmp_path, text))
    assert (made.task, made.classes, made.name) == ("multiclass", ("cat", "dog, small"), tmp_path.name)
    a, b, c = made.clips
    assert (a.id, a.labels, a.fold, a.split, a.group, a.start, a.end, a.row) == (
        "k1", ("dog, small",), 1, "train", "g1", 0.0, 0.1, 2,
    )  # fmt: skip
    assert (b.split, b.start, b.end, b.row) == ("validation", 0.1, None, 4)
    assert (c.fold, c.split, c.group, c.start, c.row) == (None, "test", None, None, 6)
    assert a.path == tmp_path / "audio" / "a.wav"


def test_csv_with_families_of_classes(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label\na.wav,dog\nb.wav,rain\n")
    made = sources.read(path, families=("dog=animals", "rain=nature", "dog=pets", "dog=pets"))
    assert made.families == {"dog": ("animals", "pets"), "rain": ("nature",)}
    for text, words in (("dgo=animals", "'dgo' is no class.* Did you mean 'dog'"), ("dog", "expected CLASS=FAMILY")):
        with pytest.raises(UserError, match=words):
            sources.read(path, families=(text,))


@pytest.mark.parametrize("cell", ["dog;cat", "dog | cat", '"dog,cat"'])
def test_csv_with_several_labels(tmp_path: Path, cell: str) -> None:
    made = sources.read(table(tmp_path, f"path,labels\naudio/a.wav,{cell}\naudio/b.wav,cat\n"))
    assert (made.task, made.classes) == ("multilabel", ("cat", "dog"))
    assert [c.labels for c in made.clips] == [("dog", "cat"), ("cat",)]


def test_csv_labels_that_hold_commas(tmp_path: Path) -> None:
    made = sources.read(table(tmp_path, 'path,labels\naudio/a.wav,"Speech, male;Rain"\naudio/b.wav,"Speech, male"\n'))
    assert made.classes == ("Rain", "Speech, male")


def test_csv_options(tmp_path: Path) -> None:
    path = table(tmp_path, "file;class\na.wav;dog\nb.wav;cat\nc.wav;dgo\n", "clips.csv")
    made = sources.read(path, classes=["dog", "cat"], audio_root=tmp_path / "audio", name="pets")
    assert (made.name, made.classes) == ("pets", ("dog", "cat"))
    report = prepare(made, tmp_path / "corpus", workers=1)
    assert report.n == 2
    assert str(report.bad[0]).endswith(
        "c.wav (row 4): label 'dgo' is not among the classes: dog, cat. Did you mean 'dog'?"
    )
    assert sources.read(path, audio_root=tmp_path / "audio", task="multilabel").task == "multilabel"
    assert sources.read(path).name == "clips"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,who\na.wav,x\n", r"meta.csv, row 1: columns 'path' and 'label' .* are needed, found file, who"),
        ("path,label\n", "no rows"),
        ("", "no rows|are needed"),
        ("path,label,label\na.wav,x,y\n", "'label' stands twice"),
        ("path,label\na.wav,x\nb.wav\n", r"meta.csv, row 3: 1 cells, the header has 2"),
        ("path,label\na.wav,x\n,y\n", r"meta.csv, row 3: the path is empty"),
        ("path,label\na.wav,x\nb.wav,\n", r"meta.csv, row 3: the label is empty"),
        ("path,label,fold\na.wav,x,1\nb.wav,x,1.5\n", r"row 3: the fold '1.5' is not a whole number"),
        ("path,label,fold\na.wav,x,1e30\n", r"row 2: the fold '1e30' is not a whole number from 0 to 2147483647"),
        ("path,label,start\na.wav,x,-1\n", r"row 2: the start '-1' is not a time"),
        ("path,label,end\na.wav,x,nan\n", r"row 2: the end 'nan' is not a time"),
        ("path,label,start,end\na.wav,x,2,1\n", r"row 2: the end 1 s is not after the start 2 s"),
        ("path,label,split\na.wav,x,trian\n", r"row 2: the split 'trian' is unknown. .*Did you mean 'train'"),
        ('path,label\na.wav,"x\n', r"meta.csv, row \d: not CSV"),
    ],
)
def test_csv_faults_name_their_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.read(table(tmp_path, text))


def test_csv_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_bytes("path,label\nä.wav,x\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        sources.read(tmp_path)


def test_csv_faults_come_together(tmp_path: Path) -> None:
    rows = "".join(f"{i}.wav,x,zero\n" for i in range(14))
    with pytest.raises(UserError) as error:
        sources.read(table(tmp_path, "path,label,fold\n" + rows))
    assert str(error.value).count("row ") == 10
    assert "and 4 more" in str(error.value)


def test_a_manifest_refuses_nonsense() -> None:
    with pytest.raises(UserError, match="no clips"):
        Manifest("m", (), ("a",), "multiclass", "here")
    with pytest.raises(UserError, match="Did you mean 'multiclass'"):
        Manifest("m", (), ("a",), "multi-class", "here")


def test_csv_names_files_that_are_not_utf8(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    (tmp_path / "meta.csv").write_bytes(b"path,label\ncaf\xe9.wav,x\n")
    made = sources.read(tmp_path)
    assert made.clips[0].path.is_file()
    assert made.clips[0].id == "caf\\xe9.wav"
    assert prepare(made, tmp_path / "corpus", workers=1, on_bad="refuse").n == 1
    for row, said in (
        (b"caf\xe8.wav,x", "row 2: not UTF-8 text: .*no file has these bytes"),
        (b"caf\xe9.wav,\xff", "column 'label'"),
    ):
        (tmp_path / "meta.csv").write_bytes(b"path,label\n" + row + b"\n")
        with pytest.raises(UserError, match=said):
            sources.read(tmp_path)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_csv_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Columns, cells and bytes as they come: a corpus whose clips can be listed, or a UserError."""
    wav(tmp_path / "a.wav")
    columns = data.draw(st.lists(st.sampled_from([*KNOWN_COLUMNS, "x", "", "\0"]), min_size=1, max_size=6))
    cell = st.sampled_from(["a.wav", "./a.wav", "x", "1", "-1", "1e999", "nan", "train", "", "\0", '"', "\r", "é", "x" * 5000, "../..", "9" * 400, "1e30", "٣"])  # fmt: skip
    rows = data.draw(st.lists(st.lists(cell, min_size=len(columns), max_size=len(columns)), max_size=4))
    text = "\n".join(data.draw(st.sampled_from([",", ";", "\t"])).join(row) for row in [columns, *rows]).encode()
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.binary(max_size=4)) + text[at:]
    (tmp_path / "meta.csv").write_bytes(text)
    try:
        made = sources.read(tmp_path / "meta.csv")
        report = prepare(made, tmp_path / "corpus", workers=1, max_seconds=0.1)
    except UserError:
        return
    assert 1 <= report.n <= len(made)
    assert len(report.corpus.targets) == report.n


KNOWN_COLUMNS = ("path", "label", "labels", "id", "fold", "split", "group", "start", "end", "PATH", "file")


# -- published layouts without a reader -----------------------------------------------------------------------------

UNREADABLE = {
    "DCASE": ("meta.csv", "evaluation_setup/fold1_train.csv", "audio/a.wav"),
    "AudioSet": ("balanced_train_segments.csv", "wav/a.wav"),
    "TFRecord": ("shards/00.tfrecord",),
    "NSynth": ("examples.json", "audio/a.wav"),
    "RAVDESS": ("Actor_01/03-01-01-01-01-01-01.wav", "Actor_02/03-01-01-01-01-01-02.wav"),
}


def tree(root: Path, files: tuple[str, ...]) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".wav"):
            wav(root / name)
        else:
            (root / name).write_text("x")
    return root


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_published_layout_without_a_reader_is_named(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "set", UNREADABLE[name])
    with pytest.raises(
        UserError, match=rf"this is {name}.* has no reader yet. A CSV file with the columns path and label"
    ):
        sources.read(root)
    if name == "DCASE":
        (root / "mine.csv").write_text("path,label,fold\naudio/a.wav,dog,1\n")
        assert sources.read(root / "mine.csv").classes == ("dog",)


@pytest.mark.parametrize("names", [("audio",), ("wav", "meta"), ("fold1", "fold2", "fold10"), ("dev", "eval"), ("train", "test"), ("Fold_3",)])  # fmt: skip
def test_names_that_are_no_classes_are_asked_about(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = tree(tmp_path / "set", tuple(f"{name}/a.wav" for name in names))
    with pytest.raises(UserError, match=r"are '.*' classes\?.*--layout audio_folder takes the names for classes"):
        sources.read(root)


@pytest.mark.parametrize("names", [("test", "dog"), ("audio", "silence"), ("blues", "jazz")])
def test_names_that_may_be_classes_are(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert set(sources.read(tree(tmp_path / "set", tuple(f"{name}/a.wav" for name in names))).classes) == set(names)
