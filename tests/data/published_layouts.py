"""Small trees in the exact layouts of published data sets, quirks included. Each writer takes an absent folder and returns it."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import soundfile as sf

from tests.data.layouts import audio_bytes, embedding, example, write_records

RATE = 8000


def wav(path: Path, seconds: float = 0.25, subtype: str = "PCM_16", rate: int = RATE, channels: int = 1) -> Path:
    """A noise of its own for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(f"{path.parent.name}/{path.name}".encode())).uniform(
        -0.5, 0.5, (round(seconds * rate), channels)
    )
    sf.write(path, noise, rate, subtype=subtype, format="AU" if path.suffix == ".au" else None)
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


# -- UrbanSound8K -------------------------------------------------------------------------------------------------

URBAN_HEAD = "slice_file_name,fsID,start,end,salience,fold,classID,class"
URBAN_ROWS = (  # sorted by fsID as text; start and end are places in the recording, beyond the end of the slice
    "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark",
    "100263-2-0-117.wav,100263,58.5,62.5,1,5,2,children_playing",
    "100263-2-0-121.wav,100263,60.5,64.5,2,5,2,children_playing",
    "100648-1-0-0.wav,100648,4.823402,5.471927,2,10,1,car_horn",
    "99812-1-0-0.wav,99812,159.522205,163.522205,2,7,1,car_horn",
    "9031-3-1-0.wav,9031,0.75,1.25,1,1,3,dog_bark",
)


def urbansound8k(root: Path, rows: tuple[str, ...] = URBAN_ROWS, head: str = URBAN_HEAD) -> Path:
    kinds = (("PCM_16", 44100, 2), ("PCM_24", 96000, 2), ("IMA_ADPCM", 44100, 1), ("FLOAT", 48000, 1), ("PCM_U8", 11025, 1), ("MS_ADPCM", 22050, 2))  # fmt: skip
    for row, (subtype, rate, channels) in zip(URBAN_ROWS, kinds, strict=True):
        name, fold = row.split(",")[0], row.split(",")[5]
        wav(root / "audio" / f"fold{fold}" / name, 0.3, subtype, rate, channels)
    text(root / "audio" / ".DS_Store", "Mac")
    text(root / "audio" / "fold1" / ".DS_Store", "Mac")
    text(root / "metadata" / "UrbanSound8K.csv", head, *rows)
    text(root / "UrbanSound8K_README.txt", "UrbanSound8K")
    return root


# -- FSD50K -------------------------------------------------------------------------------------------------------

FSD_VOCABULARY = (
    "0,Keyboard_(musical),/m/05148p4",
    "1,Music,/m/04rlf",
    "2,Musical_instrument,/m/04szw",
    "3,Purr,/m/02yds9",
    "4,Cat,/m/01yrx",
    "5,Domestic_animals_and_pets,/m/068hy",
    "6,Animal,/m/0jbk",
    "7,Hiss,/m/07rjzl8",
)
FSD_DEV = (
    '64760,"Keyboard_(musical),Musical_instrument,Music","/m/05148p4,/m/04szw,/m/04rlf",train',
    '16399,"Purr,Cat,Domestic_animals_and_pets,Animal","/m/02yds9,/m/01yrx,/m/068hy,/m/0jbk",train',
    '16401,"Music,Musical_instrument","/m/04rlf,/m/04szw",train',  # ancestors are not always after
    "237,Hiss,/m/07rjzl8,val",
)
FSD_EVAL = ('37199,"Hiss,Purr,Cat,Domestic_animals_and_pets,Animal","/m/07rjzl8,/m/02yds9,/m/01yrx,/m/068hy,/m/0jbk"', '175151,"Music","/m/04rlf"')  # fmt: skip
ONTOLOGY = [
    {"id": "/m/0jbk", "name": "Animal", "child_ids": ["/m/068hy", "/m/01yrx"]},
    {"id": "/m/04rlf", "name": "Music", "child_ids": ["/m/04szw"]},
    {"id": "/t/dd00098", "name": "Source-ambiguous sounds", "child_ids": ["/m/07rjzl8"]},
    {"id": "/m/068hy", "name": "Domestic animals, pets", "child_ids": ["/m/01yrx"]},
    {"id": "/m/01yrx", "name": "Cat", "child_ids": ["/m/02yds9", "/m/07rjzl8"]},  # Hiss has two parents
    {"id": "/m/02yds9", "name": "Purr", "child_ids": []},
    {"id": "/m/07rjzl8", "name": "Hiss", "child_ids": []},
    {"id": "/m/04szw", "name": "Musical instrument", "child_ids": ["/m/05148p4"]},
    {"id": "/m/05148p4", "name": "Keyboard (musical)", "child_ids": []},
]


def fsd50k(root: Path, dev: tuple[str, ...] = FSD_DEV, evaluation: tuple[str, ...] = FSD_EVAL, ontology: bool = True) -> Path:  # fmt: skip
    for part, rows, head in (("dev", dev, "fname,labels,mids,split"), ("eval", evaluation, "fname,labels,mids")):
        text(root / "FSD50K.ground_truth" / f"{part}.csv", head, *rows)
        names = [row.split(",")[0] for row in (FSD_DEV if part == "dev" else FSD_EVAL)]
        for name in names:
            wav(root / f"FSD50K.{part}_audio" / f"{name}.wav")
        info = {n: {"title": f"{n}.wav", "description": "", "tags": ["a"], "license": "CC0", "uploader": f"{part}_user{i}"} for i, n in enumerate(names)}  # fmt: skip
        text(root / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json", json.dumps(info))
    text(root / "FSD50K.ground_truth" / "vocabulary.csv", *FSD_VOCABULARY)
    text(root / "FSD50K.doc" / "README.md", "# FSD50K")
    if ontology:
        text(root / "ontology.json", json.dumps(ONTOLOGY))
    return root


# -- TUT Acoustic Scenes 2017 -------------------------------------------------------------------------------------

TUT_SCENES = ("beach", "cafe/restaurant", "forest_path")


def tut2017(root: Path, broken: tuple[str, ...] = ()) -> Path:
    """Three scenes, four recordings of two segments in each; four folds, of which a clip is evaluated in two."""
    clips = [(f"audio/{s[0]}{r:03d}_{a}_{a + 10}.wav", s, f"{s[0]}{r:03d}") for s in TUT_SCENES for r in (1, 2, 3, 4) for a in (0, 10)]  # fmt: skip
    for file, _, _ in clips:
        wav(root / file, subtype="PCM_24", channels=2)
    text(root / "meta.txt", *("\t".join(clip) for clip in clips))
    text(root / "error.txt", f"{clips[0][0]}\t1.5\t2.25", f"{clips[9][0]}\t0.0\t10.0")
    for fold in (1, 2, 3, 4):
        held = [c for c in clips if c[2].endswith(f"00{fold}") or (fold == 2 and c[2] == "b001")]
        trained = [c for c in clips if c not in held and not (fold == 3 and c[2] == "f004")]  # nor is all of it used
        lines = [f"{f}\t{s}" for f, s, _ in trained] + (list(broken) if fold == 1 else [])
        text(root / "evaluation_setup" / f"fold{fold}_train.txt", *lines)
        text(root / "evaluation_setup" / f"fold{fold}_evaluate.txt", *(f"{f}\t{s}" for f, s, _ in held))
        text(root / "evaluation_setup" / f"fold{fold}_test.txt", *(f for f, _, _ in held))
    return root


def tut2017_evaluation(root: Path, labelled: bool = True) -> Path:
    names = [f"audio/{i}.wav" for i in range(6)]
    for name in names:
        wav(root / name)
    text(root / "evaluation_setup" / "test.txt", *names)
    if labelled:
        rows = [f"{name}\t{TUT_SCENES[i % 3]}" for i, name in enumerate(names)]
        text(root / "evaluation_setup" / "evaluate.txt", *rows)
    return root


# -- Speech Commands ----------------------------------------------------------------------------------------------

SPEAKERS = ("004ae714", "0a7c2a8d", "b69002d4", "ffd2ba2f")


def speech_commands(root: Path) -> Path:
    for word in ("yes", "no", "backward"):
        for speaker in SPEAKERS:
            for take in (0, 1) if speaker == "004ae714" else (0,):
                wav(root / word / f"{speaker}_nohash_{take}.wav")
    wav(root / "_background_noise_" / "doing_the_dishes.wav", 1.0)
    text(root / "_background_noise_" / "README.md", "noise")
    words = ("yes", "no", "backward")
    text(root / "validation_list.txt", *(f"{word}/b69002d4_nohash_0.wav" for word in words))
    text(root / "testing_list.txt", *(f"{word}/ffd2ba2f_nohash_0.wav" for word in words))
    text(root / "README.md", "Speech Commands")
    text(root / ".DS_Store", "Mac")
    return root


# -- AudioSet's embeddings ----------------------------------------------------------------------------------------

CLASS_MAP = (
    "index,mid,display_name",
    '0,/m/09x0r,"Speech"',
    '1,/m/05zppz,"Male speech, man speaking"',
    "4,/m/04rlf,Music",
)


def audioset(root: Path) -> Path:
    """Files whose names differ in case only, a clip of four rows, one without labels, one with five, and one in two sets."""
    found = {
        "bal_train/aB.tfrecord": [("aBcdefghij0", [0, 1], 10), ("aBxxxxxxxx1", [], 4)],
        "bal_train/ab.tfrecord": [("abcdefghij2", [4], 10)],
        "unbal_train/ab.tfrecord": [("abyyyyyyyy3", [0, 4], 10)],
        "eval/-0.tfrecord": [("-0zzzzzzzz4", [4, 0, 1], 9)],
    }
    for seed, (name, clips) in enumerate(found.items()):
        made = [example(video, labels, embedding(rows, len(labels), seed)) for video, labels, rows in clips]
        write_records(root / "audioset_v1_embeddings" / name, made)
    text(root / "class_labels_indices.csv", *CLASS_MAP)
    return root


# -- UrbanSound8K in tables of Hugging Face ----------------------------------------------------------------------


def urban_tables(root: Path, saved: bool = False, missing: int | None = None) -> Path:
    """Two Parquet shards, or with `saved` the Arrow streams of `save_to_disk`; the audio of row `missing` of the second is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [dict(zip(URBAN_HEAD.split(","), row.split(","), strict=True)) for row in URBAN_ROWS]
    info = {"features": {"class": {"dtype": "string", "_type": "Value"}}}
    for k, part in enumerate((rows[:4], rows[4:])):
        audio = [
            {"bytes": None if k == 1 and i == missing else audio_bytes(i + 10 * k), "path": row["slice_file_name"]}
            for i, row in enumerate(part)
        ]
        whole = {name: [int(row[name]) for row in part] for name in ("fsID", "salience", "fold", "classID")}
        real = {name: [float(row[name]) for row in part] for name in ("start", "end")}
        plain = {name: [row[name] for row in part] for name in ("slice_file_name", "class")}
        table = pa.table({"audio": pa.array(audio), **plain, **whole, **real})
        root.mkdir(parents=True, exist_ok=True)
        if saved:
            with (
                pa.OSFile(str(root / f"data-0000{k}-of-00002.arrow"), "wb") as file,
                pa.ipc.new_stream(file, table.schema) as stream,
            ):
                stream.write_table(table)
        else:
            (root / "data").mkdir(exist_ok=True)
            pq.write_table(table, root / "data" / f"train-0000{k}-of-00002.parquet", row_group_size=3)
    if saved:
        text(root / "dataset_info.json", json.dumps(info))
        text(root / "state.json", json.dumps({"_split": "train"}))
    return root


# -- GTZAN --------------------------------------------------------------------------------------------------------


def gtzan(root: Path, folder: str = "genres_original", suffix: str = "wav", lists: bool = False) -> Path:
    from audio_cls.data.sources.gtzan import GENRES

    numbers = {genre: (0, 1, 54) if genre == "jazz" else (0, 1, 2) for genre in GENRES}
    for genre in GENRES:
        for i in numbers[genre]:
            wav(root / folder / genre / f"{genre}.{i:05d}.{suffix}")
    text(root / folder / "blues" / "._blues.00000.wav", "Mac")
    (root / folder / "jazz" / f"jazz.00054.{suffix}").write_bytes(b"not audio")
    text(root / "features_30_sec.csv", "filename,label", "blues.00000.wav,blues")
    text(root / "features_3_sec.csv", "filename,label", "blues.00000.0.wav,blues")
    if lists:
        for name, i in (("train", 0), ("valid", 1), ("test", 2)):
            lines = [f"{genre}/{genre}.{numbers[genre][i]:05d}.wav" for genre in GENRES]
            text(root / f"{name}_filtered.txt", *lines)
    return root
