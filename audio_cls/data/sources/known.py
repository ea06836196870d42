"""Published layouts that cannot be read yet, by their marks, and folders whose names are no classes.

Without this they would be taken for a folder of classes: the folds of UrbanSound8K's `audio`, RAVDESS's actors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from audio_cls.core.errors import UserError
from audio_cls.data.manifest import split_name

__all__ = ["refuse_names", "refuse_unreadable"]


@dataclass(frozen=True)
class Known:
    """A published data set: `marks` are patterns below its folder (`a + b`: both), of which any one tells it; `labels` says where its labels stand."""

    name: str
    marks: tuple[str, ...]
    labels: str


_KNOWN = (
    Known(
        "DCASE",
        ("evaluation_setup", "../evaluation_setup", "meta.txt + audio", "dev_data/*/train", "metadata_dev"),
        "meta.txt, meta.csv or evaluation_setup/: path = audio/<file>, label = the scene or event, group = the recording's or place's id",
    ),
    Known(
        "AudioSet",
        ("*_train_segments.csv", "eval_segments.csv", "class_labels_indices.csv"),
        "the segments' tables: path = your files' names, labels = positive_labels, start and end if the files are whole videos",
    ),
    Known(
        "TFRecord files that are not AudioSet's embeddings",
        ("*.tfrecord", "*/*.tfrecord", "*/*/*.tfrecord", "*.tfrecord-*", "*/*.tfrecord-*"),
        "no audio that can be read: take the recordings themselves",
    ),
    Known("NSynth", ("examples.json + audio",), "examples.json: path = audio/<name>.wav, label = instrument_family_str, group = instrument_str"),
    Known(
        "RAVDESS",
        ("Actor_01", "Audio_Speech_Actors_*/Actor_01", "audio_speech_actors_*/Actor_01"),
        "the files' names: the third of seven numbers is the emotion (label), the seventh the actor (group)",
    ),
)  # fmt: skip
_NO_CLASSES = frozenset({"audio", "audios", "wav", "wavs", "wave", "flac", "mp3", "ogg", "sound", "sounds", "clip", "clips", "recordings"})  # fmt: skip
_PARTS = frozenset({"dev", "development", "fold", "folds", "split", "train_data", "test_data", "metadata", "meta"})
_NUMBERED = re.compile(r"(fold|split|part|set)[ _-]?\d+")
_ABOVE = {
    "metadata/UrbanSound8K.csv": "urbansound8k",
    "FSD50K.ground_truth/vocabulary.csv": "fsd50k",
    "evaluation_setup/fold1_train.txt": "tut2017",
}
_PARTS_OF_LAYOUTS = ("audio", "metadata", "fsd50k.", "evaluation_setup")
_WAY_ON = "A CSV file with the columns path and label (and fold, split, group where there are any) is read"


def refuse_unreadable(path: Path) -> None:
    """Refuse a path that holds a published layout without a reader.

    Raises:
        UserError: naming the layout, where its labels stand, and the way on.
    """
    for name, layout in _ABOVE.items():
        if path.name.lower().startswith(_PARTS_OF_LAYOUTS) and (path.parent / name).exists():
            raise UserError(
                f"{path}: this is a part of a data set whose layout ({layout}) is read from {path.parent}: give that folder"
            )
    if path.is_file():
        if re.fullmatch(r"\.tfrecords?(-.*)?", path.suffix):
            raise UserError(
                f"{path}: TFRecord files are read as AudioSet's embeddings only: give the folder with bal_train, eval or unbal_train. {_WAY_ON}"
            )
        return
    for known in _KNOWN:
        mark = _mark(path, known)
        if mark is not None:
            raise UserError(
                f"{path}: this is {known.name} by its {mark!r}, which has no reader yet. {_WAY_ON}; what goes into it stands in "
                f"{known.labels}. --layout audio_folder takes the folders' names for classes all the same"
            )


def refuse_names(path: Path) -> None:
    """Refuse a folder whose folders are no classes by their names: `audio`, `fold1`, `dev`, ...

    Raises:
        UserError: asking whether they are, and naming the way on.
    """
    names = [p.name for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    if names and all(map(_is_no_class, names)) and not _has_splits(path, names):
        shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
        raise UserError(
            f"{path}: are {shown} classes? These are names for folders of files, of folds or of parts of a data set. {_WAY_ON}; "
            "if the classes lie one folder lower, give that folder; --layout audio_folder takes the names for classes"
        )


def _mark(path: Path, known: Known) -> str | None:
    for pattern in known.marks:
        if pattern.startswith("../"):  # the folder of the audio was given, its table is beside it
            if _is_no_class(path.name.lower()) and (path / pattern).exists():
                return pattern
        elif "*" in pattern:
            if next(path.glob(pattern), None) is not None:
                return pattern
        elif all((path / name).exists() for name in pattern.split(" + ")):
            return pattern
    return None


def _is_no_class(name: str) -> bool:
    word = name.lower()
    return (
        word in _NO_CLASSES or word in _PARTS or split_name(word) is not None or _NUMBERED.fullmatch(word) is not None
    )


def _has_splits(path: Path, names: list[str]) -> bool:
    """Whether these are folders of splits with folders of classes in them."""
    splits = [split_name(name) for name in names]
    return "train" in splits and all(splits) and any(p.is_dir() for name in names for p in (path / name).iterdir())
