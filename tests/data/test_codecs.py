"""Codecs: what each format's clips become, and how a clip that is not whole is named."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from audio_cls.core.errors import UserError
from audio_cls.data.audio import BadAudio, load, to_float
from audio_cls.data.codecs import AudioBytes, Codec, Pictures, SequenceExamples
from audio_cls.data.codecs.base import Part
from audio_cls.data.codecs.crc32c import crc32c
from audio_cls.data.codecs.sequence_example import parse, serialise
from audio_cls.data.codecs.tables import table_rows
from audio_cls.data.codecs.tfrecord import records
from audio_cls.data.corpus import Corpus, DamagedCorpus
from audio_cls.data.manifest import Clip, Manifest
from audio_cls.data.packing import prepare
from tests.data.layouts import (
    audio_bytes,
    embedding,
    embeddings_manifest,
    example,
    picture,
    write_audio_table,
    write_pictures,
    write_records,
)


def test_crc32c_of_published_vectors() -> None:
    """RFC 3720, B.4, and the check value of the CRC catalogue."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=5000))
def test_crc32c_equals_the_bitwise_definition(data: bytes) -> None:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_sequence_examples_come_back_and_are_what_protobuf_says() -> None:
    context = {"video_id": [b"-0abc"], "labels": [0, 4, 522], "start_time_seconds": [12.5]}
    lists = {"audio_embedding": [[b"\x00\xff"], [b"\x01\x02"]], "rgb": [[1.5, 2.5]]}
    assert parse(serialise(context, lists)) == (context, lists)
    # by hand, from the wire format: context {feature {key "a", value {int64_list {value 3}}}}
    assert parse(bytes.fromhex("0a0c0a0a0a016112051a030a0103"))[0] == {"a": [3]}
    with pytest.raises(UserError, match="no SequenceExample"):
        parse(b"\xff\xff\xff")


def test_embeddings_are_packed_by_record(tmp_path: Path) -> None:
    manifest = embeddings_manifest(tmp_path / "src")
    corpus = prepare(manifest, tmp_path / "c", workers=1).corpus
    assert corpus.payload.describe() == "sequence, quantised PCA, uint8 (128,) at 1 rows/s"
    assert (corpus.payload.row, corpus.samples.shape) == ((128,), (int(corpus.lengths.sum()), 128))
    assert corpus.clips == manifest.clips
    for i, clip in enumerate(manifest.clips):
        number = int(clip.id[1:])
        stored = embedding(10 - number % 5, number // 2 % 2, number)
        assert np.array_equal(corpus.samples_of(i), stored)
        assert np.allclose(corpus.values(i), stored * (4 / 255) + 4 / 512 - 2, atol=1e-6)
    assert corpus.seconds.tolist() == [float(n) for n in corpus.lengths]
    corpus.verify()


def test_embeddings_do_not_depend_on_workers_and_are_not_decoded_twice(tmp_path: Path) -> None:
    manifest = embeddings_manifest(tmp_path / "src", n=80)
    prepare(manifest, tmp_path / "one", workers=1)
    prepare(manifest, tmp_path / "two", workers=2)
    for path in (tmp_path / "one").iterdir():
        assert path.name == ".lock" or path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert prepare(manifest, tmp_path / "one", workers=1).decoded == 0
    relabelled = dataclasses.replace(
        manifest, clips=(*manifest.clips[:-1], dataclasses.replace(manifest.clips[-1], fold=9))
    )
    again = prepare(relabelled, tmp_path / "one", workers=1)
    assert (again.decoded, again.corpus.folds[-1]) == (0, 9)
    scaled = dataclasses.replace(manifest, codec=SequenceExamples(scale=1.0))
    assert prepare(scaled, tmp_path / "one", workers=1).corpus.digest != again.corpus.digest


KILL = """
import sys
from pathlib import Path
from audio_cls.data.packing import prepare
from tests.data.layouts import embeddings_manifest
prepare(embeddings_manifest(Path(sys.argv[1]), n=2000), sys.argv[2], workers=1)
"""


@pytest.mark.slow
def test_embeddings_killed_while_prepared_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    journal = tmp_path / "cut" / "partial" / "journal.jsonl"
    process = subprocess.Popen([sys.executable, "-c", KILL, tmp_path / "src", tmp_path / "cut"])
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.stat().st_size > 20_000:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    manifest = embeddings_manifest(tmp_path / "src", n=2000)  # as the killed process wrote it
    report = prepare(manifest, tmp_path / "cut", workers=2)
    assert 0 < report.decoded < 2000
    whole = prepare(manifest, tmp_path / "whole", workers=1)
    assert report.corpus.digest == whole.corpus.digest
    assert report.corpus.samples_path.read_bytes() == whole.corpus.samples_path.read_bytes()


def test_a_record_that_is_not_whole_is_named(tmp_path: Path) -> None:
    made = [example(f"v{i}", [0], embedding(3, 0, i)) for i in range(4)]
    path = tmp_path / "a.tfrecord"
    offsets = write_records(path, made)
    assert [offset for offset, _ in records(path)] == offsets
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[offsets[2] + 40] ^= 1
    for content, message in (
        (bytes(flipped), rf"a.tfrecord, record 3 \(at byte {offsets[2]:,}\): damaged: its data does not match"),
        (whole[:-7], rf"record 4 \(at byte {offsets[3]:,}\): cut short"),
        (whole[: offsets[1] + 5], "record 2 .*: cut short: 5 of the 12 bytes"),
        (b"RIFF" + whole, "record 1 .*no TFRecord file"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            list(records(path))
    path.write_bytes(bytes(flipped))
    clips = tuple(Clip(f"v{i}", path, ("a",), position=offset) for i, offset in enumerate([*offsets, len(whole)]))
    manifest = Manifest("m", clips, ("a",), "multiclass", "test", codec=SequenceExamples())
    report = prepare(manifest, tmp_path / "c", workers=1)
    assert [bad.id for bad in report.bad] == ["v2", "v4"]
    assert f"record at byte {offsets[2]:,}: damaged" in report.bad[0].reason
    assert "the file ends before it" in report.bad[1].reason


def test_rows_of_another_width_and_empty_lists_are_named(tmp_path: Path) -> None:
    examples = [
        example("short", [0], embedding(3, 0, 0, n_values=5)),
        example("empty", [0], embedding(0, 0, 0)),
        serialise({"labels": [1]}, {"other": [[b"x"]]}),
    ]
    path = tmp_path / "a.tfrecord"
    offsets = write_records(path, examples)
    reader = SequenceExamples().open(path)
    for offset, message in zip(offsets, ("row 1: 5 bytes, expected 128", "empty", "it has other"), strict=True):
        with pytest.raises(BadAudio, match=message):
            reader.read(Part(offset))
    reader.close()


def test_numbers_in_place_of_bytes(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    data = serialise({}, {"vectors": [row.tolist() for row in values]})
    path = tmp_path / "a.tfrecord"
    write_records(path, [data])
    codec = SequenceExamples(feature="vectors", n_values=4, dtype="float32", scale=1, offset=0, values="")
    manifest = Manifest("m", (Clip("a", path, ("x",), position=0),), ("x",), "multiclass", "t", codec=codec)
    assert np.array_equal(prepare(manifest, tmp_path / "c", workers=1).corpus.values(0), values)


def test_an_embedding_that_is_damaged_on_disk_is_refused(tmp_path: Path) -> None:
    corpus = prepare(embeddings_manifest(tmp_path / "src"), tmp_path / "c", workers=1).corpus
    with open(corpus.samples_path, "r+b") as file:
        file.seek(128 * int(corpus.offsets[5]) + 3)
        file.write(b"\x00\x01\x02")
    with pytest.raises(DamagedCorpus, match=corpus.ids[5]):
        Corpus.open(tmp_path / "c")
    assert prepare(embeddings_manifest(tmp_path / "src"), tmp_path / "c", workers=1).corpus.damaged() == []


# -- pictures -----------------------------------------------------------------------------------------------------


def test_a_picture_is_columns_along_time(tmp_path: Path) -> None:
    seen = np.arange(24 * 10 * 3, dtype=np.uint8).reshape(24, 10, 3)  # (height, width, channels)
    path = tmp_path / "a.png"
    Image.fromarray(seen).save(path)
    expected = {
        "right": seen.transpose(1, 2, 0),
        "left": seen[:, ::-1].transpose(1, 2, 0),
        "down": seen.transpose(0, 2, 1),
        "up": seen[::-1].transpose(0, 2, 1),
    }
    for time_axis, rows in expected.items():
        codec = Pictures(time=time_axis).fitted([path])
        assert codec.payload(None).row == (3, rows.shape[2])
        assert np.array_equal(codec.open(path).read(Part()).values, rows)


@pytest.mark.parametrize(
    ("mode", "channels", "bits"),
    [("RGB", 3, 8), ("RGBA", 3, 8), ("P", 3, 8), ("L", 1, 8), ("LA", 1, 8), ("1", 1, 8), ("I;16", 1, 16)],
)
def test_every_kind_of_picture_is_read(tmp_path: Path, mode: str, channels: int, bits: int) -> None:
    path = tmp_path / "a.png"
    image = picture(1, 0, mode=mode)
    image.save(path)
    codec = Pictures().fitted([path])
    assert (codec.channels, codec.bits, codec.height) == (channels, bits, 32)
    values = codec.open(path).read(Part()).values
    assert values.shape == (40, channels, 32)
    if mode == "I;16":
        assert np.array_equal(values[:, 0].T, np.asarray(image))
        eight = Pictures(bits=8).fitted([path]).open(path).read(Part()).values
        assert np.array_equal(eight[:, 0].T, np.asarray(image) // 257)
    elif mode != "1":
        grey = np.asarray(picture(1, 0, mode="L"))
        assert abs(values.mean(1).T - grey).mean() < 3  # a palette of 64 colours is not exact


def test_transparency_lies_over_white_and_sizes_are_asked_for(tmp_path: Path) -> None:
    clear = np.zeros((8, 6, 4), np.uint8)
    clear[:4, :, 3] = 255
    Image.fromarray(clear).save(tmp_path / "a.png")
    values = Pictures(height=8).open(tmp_path / "a.png").read(Part()).values
    assert values[:, :, :4].max() == 0
    assert values[:, :, 4:].min() == 255
    picture(0, 0, (40, 32)).save(tmp_path / "b.jpg", quality=95)
    assert Pictures(height=16).open(tmp_path / "b.jpg").read(Part()).values.shape == (20, 1, 16)
    assert Pictures(height=16, width=50, channels=3).open(tmp_path / "b.jpg").read(Part()).values.shape == (50, 3, 16)
    assert len(Pictures(height=32).open(tmp_path / "b.jpg").read(Part(max_seconds=0.1)).values) == 10
    with pytest.raises(UserError, match="bits=16 is for grey pictures"):
        Codec.parse({"kind": "picture", "bits": 16, "channels": 3})


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "src", n=6)
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    paths[2].write_text("not a picture")
    paths[3].unlink()
    clips = tuple(Clip(p.name, p, (p.parent.name,)) for p in paths)
    manifest = Manifest("m", clips, ("high", "low"), "multiclass", "t", codec=Pictures().fitted(paths))
    report = prepare(manifest, tmp_path / "c", workers=1)
    assert {bad.id: bad.reason.split(":")[0] for bad in report.bad} == {
        "001.png": "cannot be decoded",
        "002.png": "is no PNG or JPEG picture",
        "003.png": "the file is missing",
    }
    assert (report.n, report.corpus.payload.row, report.corpus.payload.domain) == (3, (3, 32), "image")
    assert report.corpus.values(0).max() <= 1
    with pytest.raises(UserError, match="holds no waveforms"):
        prepare(manifest, tmp_path / "d", sample_rate=16000)


# -- audio bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_audio_in_a_table_is_what_it_is_in_files(tmp_path: Path, suffix: str) -> None:
    values: list[bytes | None] = [audio_bytes(i, kind="FLAC" if i % 3 else "WAV", rate=22050) for i in range(30)]
    path = tmp_path / f"t.{suffix}"
    write_audio_table(path, values)
    rows = list(table_rows(path, ["slice_file_name", "class"]))
    assert rows[1] == {"slice_file_name": "1.wav", "class": "cat"}
    clips, files = [], []
    for i, value in enumerate(values):
        (tmp_path / f"{i}.bin").write_bytes(value or b"")
        clips.append(Clip(f"{i}", path, (rows[i]["class"],), position=i))
        files.append(Clip(f"{i}", tmp_path / f"{i}.bin", (rows[i]["class"],)))
    table = Manifest("m", tuple(clips), ("cat", "dog"), "multiclass", "t", codec=AudioBytes())
    report = prepare(table, tmp_path / "c", workers=2)
    same = prepare(dataclasses.replace(table, clips=tuple(files), codec=None), tmp_path / "d", workers=1)
    assert report.corpus.digest == same.corpus.digest
    assert report.corpus.clips == table.clips
    assert report.rate_reason.startswith("most clips are recorded at 22050 Hz")
    assert np.array_equal(report.corpus.waveform(4), to_float(load(tmp_path / "4.bin", sample_rate=16000).samples))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_rows_without_audio_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    write_audio_table(path, [audio_bytes(0), None, b"", b"junk", audio_bytes(4)[:3000], audio_bytes(5)])
    clips = tuple(Clip(f"{i}", path, ("a",), position=i) for i in range(7))
    manifest = Manifest("m", clips, ("a",), "multiclass", "t", codec=AudioBytes())
    report = prepare(manifest, tmp_path / "c", workers=1)
    assert report.corpus.ids == ("0", "5")
    reasons = [bad.reason for bad in report.bad]
    assert reasons[0] == "row 1: its audio is missing (null)"
    assert reasons[1].startswith("row 2: its audio is empty")
    assert reasons[2].startswith("row 3: cannot be decoded")
    assert reasons[3].startswith("row 4: cut short")
    assert reasons[4] == "row 6: the file ends at row 5"


def test_a_table_that_is_none_or_lacks_the_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(BadAudio, match="cannot be read as parquet"):
        AudioBytes().open(path)
    with pytest.raises(UserError, match=r"t.parquet: cannot be read as parquet"):
        list(table_rows(path, ["class"]))
    write_audio_table(path, [audio_bytes(0)])
    with pytest.raises(BadAudio, match="has no column 'sound'; its columns: audio, slice_file_name, class"):
        AudioBytes(column="sound").open(path)
    with pytest.raises(UserError, match="has no column 'fold'"):
        list(table_rows(path, ["fold"]))


# -- what a manifest may add ----------------------------------------------------------------------------------------


def test_columns_and_lists_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_audio_table(path, [audio_bytes(i) if i != 2 else None for i in range(6)])
    clips = tuple(Clip(f"{i}", path, ("a",), position=i) for i in range(6))
    plain = Manifest("m", clips, ("a",), "multiclass", "t", codec=AudioBytes())
    more = dataclasses.replace(plain, extra={"salience": [1, 2, 1, None, 2, 1]})
    lists = {2: {"train": ["0", "1", "2"], "test": ["5", "3"]}, 1: {"train": ["4"], "validation": ["3"]}}
    corpora = [
        prepare(m, tmp_path / str(k), workers=1).corpus
        for k, m in enumerate((plain, more, dataclasses.replace(more, lists=lists)))
    ]
    assert corpora[1].extra == {"salience": [1, 2, None, 2, 1]}
    assert corpora[0].digest == corpora[1].digest != corpora[2].digest
    found = {fold: {side: rows.tolist() for side, rows in sides.items()} for fold, sides in corpora[2].lists.items()}
    assert found == {1: {"train": [3], "validation": [2]}, 2: {"test": [2, 4], "train": [0, 1]}}
    with pytest.raises(UserError, match="fold 1 lists '7' for test, which is no clip"):
        dataclasses.replace(plain, lists={1: {"test": ["7"]}})
    with pytest.raises(UserError, match="column 'salience' has 1 values for 6 clips"):
        dataclasses.replace(plain, extra={"salience": [1]})
    shutil.rmtree(tmp_path / "2")
