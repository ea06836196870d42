"""Packing: the same bytes for any number of workers and any interruption; bad clips named; corpora opened and verified."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_cls.core.errors import UserError
from audio_cls.data import corpus as corpora
from audio_cls.data import rates, sources
from audio_cls.data.audio import load, to_float
from audio_cls.data.corpus import Corpus, DamagedCorpus
from audio_cls.data.manifest import Clip, Manifest
from audio_cls.data.packing import prepare
from audio_cls.data.rates import choose_rate
from audio_cls.data.workers import WorkerDied, ordered_map
from audio_cls.experiment import Experiment
from audio_cls.report.description import describe
from audio_cls.runs.resolve import resolve
from audio_cls.training.batches import FeatureCache

MakeManifest = Callable[..., Manifest]


@pytest.fixture
def make(tmp_path: Path) -> MakeManifest:
    """Writes n small WAV files of different lengths and gives their manifest."""

    def _make(n: int = 12, rate: int = 22050, **changes: object) -> Manifest:
        (tmp_path / "src").mkdir(exist_ok=True)
        clips = []
        for i in range(n):
            path = tmp_path / "src" / f"{i:04d}.wav"
            if not path.exists():
                x = np.random.default_rng(i).uniform(-0.7, 0.7, 3000 + 37 * i)
                sf.write(path, x if i % 2 else np.stack([x, x], axis=1), rate)
            clips.append(Clip(path.name, path, ("ab"[i % 2],), fold=1 + i % 3, group=f"g{i // 2}", row=i + 2))
        made = Manifest("small", tuple(clips), ("a", "b"), "multiclass", "test", root=tmp_path / "src")
        return dataclasses.replace(made, **changes)  # type: ignore[arg-type]

    return _make


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name != ".lock"}


def test_corpus_holds_what_the_files_hold(make: MakeManifest, tmp_path: Path) -> None:
    manifest = make()
    report = prepare(manifest, tmp_path / "c", workers=1)
    corpus = Corpus.open(tmp_path / "c")
    assert (report.n, report.bad, report.decoded, len(corpus)) == (12, (), 12, 12)
    assert corpus.clips == manifest.clips
    for i, clip in enumerate(manifest.clips):
        samples = load(clip.path, sample_rate=16000).samples
        assert np.array_equal(corpus.waveform(i), to_float(samples))
    assert corpus.samples.dtype == np.int16
    assert corpus.waveform(0).dtype == np.float32
    assert corpus.targets.tolist() == [[1.0, 0.0], [0.0, 1.0]] * 6
    assert corpus.folds.tolist() == [1, 2, 3] * 4
    assert corpus.groups == tuple(f"g{i // 2}" for i in range(12))
    assert set(corpus.source_rates) == {22050}
    assert corpus.source_channels.tolist() == [2, 1] * 6
    assert corpus.class_counts().tolist() == [6, 6]
    corpus.verify()


def test_bytes_do_not_depend_on_workers(make: MakeManifest, tmp_path: Path) -> None:
    manifest = make(40)
    prepare(manifest, tmp_path / "one", workers=1)
    prepare(manifest, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_again_there_is_nothing_to_do(make: MakeManifest, tmp_path: Path) -> None:
    first = prepare(make(), tmp_path / "c", workers=1)
    index = tmp_path / "c" / "index.json"
    before = index.stat().st_mtime_ns
    again = prepare(make(), tmp_path / "c", workers=1)
    assert (again.decoded, again.n, again.corpus.digest) == (0, first.n, first.corpus.digest)
    assert index.stat().st_mtime_ns == before


KILL = """
import sys, time
from pathlib import Path
from audio_cls.data import sources
from audio_cls.data.packing import prepare
from audio_cls.data.rates import choose_rate
prepare(sources.read(Path(sys.argv[1]), "audio_folder"), sys.argv[2], workers=int(sys.argv[3]))
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    for i in range(60):
        path = tmp_path / "src" / "ab"[i % 2] / f"{i:04d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.random.default_rng(i).uniform(-0.7, 0.7, 60000), 44100)
    manifest = sources.read(tmp_path / "src")
    prepare(manifest, tmp_path / "whole", workers=1)
    for workers, seen in ((1, 5), (2, 20), (2, 45)):
        journal = tmp_path / "cut" / "partial" / "journal.jsonl"
        process = subprocess.Popen([sys.executable, "-c", KILL, tmp_path / "src", tmp_path / "cut", str(workers)])
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.read_bytes().count(b"\n") >= seen:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(UserError, match="interrupted"):
            Corpus.open(tmp_path / "cut")
        kept = journal.read_bytes().count(b"\n")
        assert seen <= kept < 60
        with open(journal, "ab") as file:  # and a torn tail
            file.write(b'{"key": "x", "length": 12')
        with open(journal.with_name("samples.i16"), "ab") as file:
            file.write(b"torn tail")
    report = prepare(manifest, tmp_path / "cut", workers=2)
    assert report.decoded <= 60 - kept
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_damage_in_the_store_costs_the_clips_behind_it_only(make: MakeManifest, tmp_path: Path) -> None:
    manifest = make()
    prepare(manifest, tmp_path / "whole", workers=1)
    broken = dataclasses.replace(manifest, clips=(*manifest.clips, Clip("no", tmp_path / "no.wav", ("a",))))
    with pytest.raises(UserError, match=r"no\.wav"):
        prepare(broken, tmp_path / "c", workers=1, on_bad="refuse")
    samples = tmp_path / "c" / "partial" / "samples.i16"
    data = bytearray(samples.read_bytes())
    data[len(data) // 2] ^= 0xFF
    samples.write_bytes(data)
    report = prepare(manifest, tmp_path / "c", workers=1)
    assert 0 < report.decoded < 12
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["before the samples", "between the renames"])
def test_interrupted_publication_is_taken_up(
    make: MakeManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    manifest, real, calls = make(), os.replace, [0]
    prepare(manifest, tmp_path / "whole", workers=1)

    def dies(a: Path, b: Path) -> None:
        calls[0] += 1
        if calls[0] == (1 if moment == "before the samples" else 2):
            raise KeyboardInterrupt
        real(a, b)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, tmp_path / "c", workers=1)
    monkeypatch.undo()
    assert prepare(manifest, tmp_path / "c", workers=1).decoded == 0
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


def test_changed_labels_and_files_decode_only_what_changed(make: MakeManifest, tmp_path: Path) -> None:
    first = prepare(make(), tmp_path / "c", workers=1)
    clips = [dataclasses.replace(c, fold=1) for c in make(13).clips]
    sf.write(clips[3].path, np.random.default_rng(99).uniform(-0.5, 0.5, 5000), 16000)
    os.utime(clips[3].path, ns=(1, 1))
    changed = make(13, clips=tuple(reversed(clips)))
    report = prepare(changed, tmp_path / "c", workers=1)
    assert report.decoded == 2
    assert report.corpus.digest != first.corpus.digest
    assert len(list((tmp_path / "c").glob("samples-*"))) == 1
    prepare(changed, tmp_path / "fresh", workers=1)
    assert contents(tmp_path / "c") == contents(tmp_path / "fresh")


def bad_manifest(make: MakeManifest, tmp_path: Path) -> tuple[Manifest, dict[str, tuple[int, str]]]:
    good = list(make(4).clips)
    src = tmp_path / "src"
    (src / "text.wav").write_text("no audio here, only words")
    (src / "empty.wav").write_bytes(b"")
    sf.write(src / "silent.wav", np.zeros(4000), 8000)
    sf.write(src / "short.wav", np.ones(40) * 0.3, 8000)
    bad = [
        Clip("text.wav", src / "text.wav", ("a",), row=10),
        Clip("empty.wav", src / "empty.wav", ("a",), row=11),
        Clip("silent.wav", src / "silent.wav", ("a",), row=12),
        Clip("short.wav", src / "short.wav", ("a",), row=13),
        Clip("gone.wav", src / "gone.wav", ("a",), row=14),
        Clip("odd.wav", good[0].path, ("aa",), row=15),
        Clip("two.wav", good[0].path, ("a", "b"), row=16),
        Clip(good[1].id, good[1].path, ("b",), row=17),
    ]
    reasons = ("decoded", "0 bytes", "silent", "too short", "missing", "Did you mean 'a'", "2 labels", "taken by row 3")
    mixed = (good[0], *bad[:4], good[1], *bad[4:], *good[2:])
    return make(4, clips=mixed), {c.id: (c.row or 0, r) for c, r in zip(bad, reasons, strict=True)}


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_clips_are_left_out_by_name_and_row(make: MakeManifest, tmp_path: Path, workers: int) -> None:
    manifest, expected = bad_manifest(make, tmp_path)
    report = prepare(manifest, tmp_path / "c", workers=workers, on_bad="skip")
    assert {b.id: b.row for b in report.bad} == {id_: row for id_, (row, _) in expected.items()}
    for clip in report.bad:
        assert expected[clip.id][1] in clip.reason
        assert f"row {clip.row}" in str(clip)
        assert str(clip.path) in str(clip)
    prepare(make(4), tmp_path / "good", workers=1)
    assert report.corpus.digest == Corpus.open(tmp_path / "good").digest
    assert prepare(manifest, tmp_path / "c").bad == report.bad  # nothing done, the same report
    assert len(describe(report.corpus).bad) == len(expected)


def test_bad_clips_are_refused_with_nothing_lost(make: MakeManifest, tmp_path: Path) -> None:
    manifest, expected = bad_manifest(make, tmp_path)
    with pytest.raises(UserError) as error:
        prepare(manifest, tmp_path / "c", on_bad="refuse", workers=1)
    for id_, (row, reason) in expected.items():
        assert f"(row {row})" in str(error.value), id_
        assert reason in str(error.value)
    assert f"{len(expected)} of {len(manifest)} clips" in str(error.value)
    assert not (tmp_path / "c" / "index.json").exists()
    assert prepare(make(4), tmp_path / "c", on_bad="refuse", workers=1).decoded == 0


def test_many_bad_clips_are_counted(make: MakeManifest, tmp_path: Path) -> None:
    clips = tuple(Clip(f"{i}", tmp_path / f"{i}.wav", ("a",), row=i) for i in range(25))
    with pytest.raises(UserError, match=r"25 of 25 clips are bad. No clip can be used(.|\n)*\.\.\. and 15 more"):
        prepare(make(clips=clips), tmp_path / "c")


def test_wrong_arguments_and_another_data_set_are_refused(make: MakeManifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'skip'"):
        prepare(make(), tmp_path / "c", on_bad="skp")
    with pytest.raises(UserError, match="hertz"):
        prepare(make(), tmp_path / "c", sample_rate=16)
    prepare(make(), tmp_path / "c", workers=1)
    with pytest.raises(UserError, match="holds the corpus 'small', asked was 'other'"):
        prepare(make(name="other"), tmp_path / "c", workers=1)


def test_digest_tells_content_not_place(make: MakeManifest, tmp_path: Path) -> None:
    base = prepare(make(), tmp_path / "c", workers=1).corpus.digest
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "src").rename(elsewhere)
    moved = [dataclasses.replace(c, id=f"x{c.id}", path=elsewhere / c.path.name) for c in make().clips]
    (tmp_path / "c").rename(tmp_path / "d")
    Corpus.open(tmp_path / "d").verify()
    assert prepare(make(clips=tuple(moved), name="n", root=None), tmp_path / "e", workers=1).corpus.digest == base
    for k, change in enumerate(({"fold": 7}, {"labels": ("b",)}, {"group": "z"}, {"split": "train"}, {"end": 0.1})):
        clips = (dataclasses.replace(make().clips[0], **change), *make().clips[1:])  # type: ignore[arg-type]
        assert prepare(make(clips=clips), tmp_path / f"f{k}", workers=1).corpus.digest != base
    assert prepare(make(), tmp_path / "g", workers=1, sample_rate=8000).corpus.digest != base


def test_open_and_verify_notice_damage(make: MakeManifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus here"):
        Corpus.open(tmp_path)
    corpus = prepare(make(), tmp_path / "c", workers=1).corpus
    index, samples = tmp_path / "c" / "index.json", corpus.samples_path
    text, data = index.read_text(), samples.read_bytes()
    flipped = bytearray(data)
    flipped[2 * int(corpus.offsets[3]) + 1] ^= 1
    samples.write_bytes(flipped)
    with pytest.raises(UserError, match=r"1 of 12 clips are damaged: 0003.wav"):
        Corpus.open(tmp_path / "c").verify()
    samples.write_bytes(data[:-2])
    with pytest.raises(UserError, match="the index tells"):
        Corpus.open(tmp_path / "c")
    samples.write_bytes(data)
    for wrong, message in (
        (text.replace('"version": 1', '"version": 9'), "version 9"),
        (text[: len(text) // 2], "not the index"),
        (json.dumps({**json.loads(text), "n": 11}), "12 values for 11 clips"),
    ):
        index.write_text(wrong)
        with pytest.raises(UserError, match=message):
            Corpus.open(tmp_path / "c")
    index.write_text(text.replace('"fold": [1,', '"fold": [2,'))
    with pytest.raises(UserError, match=r"index.json: damaged: it does not match its checksum"):
        Corpus.open(tmp_path / "c")


def test_a_damaged_corpus_is_prepared_anew(make: MakeManifest, tmp_path: Path) -> None:
    corpus = prepare(make(), tmp_path / "c", workers=1).corpus
    corpus.samples_path.write_bytes(b"12")
    assert prepare(make(), tmp_path / "c", workers=1).decoded == 12
    Corpus.open(tmp_path / "c").verify()


def test_multilabel_targets(make: MakeManifest, tmp_path: Path) -> None:
    labels = [("a", "b"), ("b",), ()]
    clips = tuple(dataclasses.replace(c, labels=ls) for c, ls in zip(make(3).clips, labels, strict=True))
    corpus = prepare(make(clips=clips, task="multilabel"), tmp_path / "c", workers=1).corpus
    assert corpus.targets.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert corpus.clips[0].labels == ("a", "b")
    made = describe(corpus)
    assert made.labels_per_clip == {0: 1, 1: 1, 2: 1}
    assert made.baselines == {"prior mAP": {"all": pytest.approx((1 / 3 + 2 / 3) / 2)}}


def test_progress_counts_to_the_end(make: MakeManifest, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(make(), tmp_path / "c", workers=1, progress=lambda done, total, what: seen.append((done, total)))
    assert seen[0] == (0, 12)
    assert seen[-1] == (12, 12)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_describe_counts(make: MakeManifest, tmp_path: Path) -> None:
    clips = [dataclasses.replace(c, split="train" if i < 8 else "test") for i, c in enumerate(make().clips)]
    clips[0] = dataclasses.replace(clips[0], labels=("b",))
    clips.append(dataclasses.replace(clips[1], id="twin"))
    corpus = prepare(make(clips=tuple(clips)), tmp_path / "c", workers=1).corpus
    made = describe(corpus)
    assert made.class_counts == (5, 8)
    assert made.by_split == {"train": (3, 6), "test": (2, 2)}
    assert sum(made.clips_by_fold.values()) == 13
    assert made.duplicates == (("0001.wav", "twin"),)
    assert made.channels == {1: 7, 2: 6}
    assert made.sample_rates == {22050: 13}
    assert made.baselines["majority accuracy"] == {"test": 0.5}
    assert made.baselines["random accuracy"] == {"test": 0.5}
    json.dumps(made.to_dict())
    for table in made.tables():
        assert all(len(row) == len(table.columns) for row in table.rows)


# -- the rate -------------------------------------------------------------------------------------------------------


def at_rates(tmp_path: Path, *rates: int, name: str = "r") -> Manifest:
    """One clip of half a second at each rate."""
    (tmp_path / name).mkdir()
    clips = []
    for i, rate in enumerate(rates):
        path = tmp_path / name / f"{i}.wav"
        sf.write(path, np.random.default_rng(i).uniform(-0.5, 0.5, rate // 2), rate)
        clips.append(Clip(path.name, path, ("a",)))
    return Manifest("small", tuple(clips), ("a",), "multiclass", "test", root=tmp_path / name)


@pytest.mark.parametrize(
    ("rates", "expected", "reason"),
    [
        ((8000, 8000, 44100), 8000, "the rate of 2 of 3 clips"),
        ((44100, 44100, 8000), 16000, "recorded at 44100 Hz; more than 16000 only when asked"),
        ((8000, 11025), 8000, "the rate of 1 of 2 clips"),  # of equals the lowest
        ((12000,) * 3, 12000, "the rate of 3 of 3 clips"),
    ],
)
def test_the_rate_is_that_of_most_files(tmp_path: Path, rates: tuple[int, ...], expected: int, reason: str) -> None:
    report = prepare(at_rates(tmp_path, *rates), tmp_path / "c", workers=1)
    assert report.corpus.sample_rate == expected
    assert reason in report.rate_reason
    assert report.notes == ()


def test_the_rate_does_not_depend_on_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_FILES_PER_JOB", 1)
    manifest = at_rates(tmp_path, *([8000] * 5 + [22050] * 4))
    (tmp_path / "r" / "0.wav").write_bytes(b"no audio")
    seen: list[str] = []
    tell = lambda done, total, what: seen.append(what)  # noqa: E731
    assert choose_rate(manifest, "auto", tmp_path / "c", 2, tell).reason == "the rate of 4 of 8 clips"
    assert any(what.startswith("reading headers") for what in seen)


def test_a_rate_above_the_files_own_is_warned_of(tmp_path: Path) -> None:
    report = prepare(at_rates(tmp_path, 8000, 8000, 44100), tmp_path / "c", workers=1, sample_rate=16000)
    assert report.corpus.sample_rate == 16000
    [note] = report.notes
    assert note.startswith("2 of 3 clips are recorded below 16000 Hz, most at 8000 Hz")
    assert note.endswith("Better: --sample-rate 8000")


def test_a_rate_that_throws_the_band_away_is_warned_of(tmp_path: Path) -> None:
    manifest = at_rates(tmp_path, 44100, 44100, 16000)
    report = prepare(manifest, tmp_path / "c", sample_rate=8000, workers=1)
    assert report.notes[0] == (
        "most clips are recorded at 44100 Hz: at 8000 Hz all above 4000 Hz is thrown away. Better: --sample-rate 16000"
    )
    assert not any("thrown away" in note for note in prepare(manifest, tmp_path / "d", workers=1).notes)


def test_a_corpus_and_an_interrupted_preparation_keep_their_rate(tmp_path: Path) -> None:
    manifest = at_rates(tmp_path, 8000, 8000)
    first = prepare(manifest, tmp_path / "c", workers=1, sample_rate=16000)
    again = prepare(manifest, tmp_path / "c", workers=1)
    assert (again.decoded, again.corpus.digest, again.rate_reason) == (
        0,
        first.corpus.digest,
        "as it was packed before",
    )
    (tmp_path / "r" / "bad.wav").write_bytes(b"no audio")
    broken = dataclasses.replace(manifest, clips=(*manifest.clips, Clip("x", tmp_path / "r" / "bad.wav", ("a",))))
    with pytest.raises(UserError, match="1 of 3 clips"):
        prepare(broken, tmp_path / "d", workers=1, sample_rate=12000, on_bad="refuse")
    taken_up = prepare(manifest, tmp_path / "d", workers=1)
    assert (taken_up.decoded, taken_up.corpus.sample_rate) == (0, 12000)


def test_wrong_rates_and_lengths_leave_nothing_behind(tmp_path: Path) -> None:
    manifest = at_rates(tmp_path, 8000)
    for wrong in ({"sample_rate": 10**9}, {"sample_rate": 10}, {"max_seconds": float("nan")}, {"max_seconds": 0.01}):
        with pytest.raises(UserError, match=rf"\(--{next(iter(wrong)).replace('_', '-')}\)"):
            prepare(manifest, tmp_path / "c", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="No clip can be used"):
        prepare(dataclasses.replace(manifest, clips=(Clip("x", tmp_path / "x.wav", ("a",)),)), tmp_path / "c")
    assert not (tmp_path / "c").exists()


# -- damage ---------------------------------------------------------------------------------------------------------


def zero(corpus: Corpus, share: float = 0.14) -> None:
    """Zero a part of the packed samples from 40 % on."""
    size = corpus.samples_path.stat().st_size
    with open(corpus.samples_path, "r+b") as file:
        file.seek(int(size * 0.4))
        file.write(bytes(int(size * share)))


def test_a_corpus_of_which_a_part_is_zero_is_refused_when_opened_and_repaired(
    make: MakeManifest, tmp_path: Path
) -> None:
    corpus = prepare(make(40), tmp_path / "c", workers=1, max_seconds=60).corpus
    before = contents(tmp_path / "c")
    zero(corpus)
    with pytest.raises(
        DamagedCorpus, match=r"\d of 40 clips are damaged: 0\d\d\d.wav, .*repair it with: (.*)"
    ) as error:
        Corpus.open(tmp_path / "c")
    assert str(error.value).endswith(
        f"audio-cls data prepare {tmp_path / 'src'} --name c --sample-rate 16000 --max-seconds 60"
    )
    report = prepare(make(40), tmp_path / "c", workers=1, max_seconds=60)
    assert 4 <= report.decoded <= 10
    assert contents(tmp_path / "c") == before


def test_a_trimmed_corpus_says_so_and_is_repaired_as_it_was_made(make: MakeManifest, tmp_path: Path) -> None:
    manifest = make(3)
    for i, clip in enumerate(manifest.clips):
        sound = np.random.default_rng(i).uniform(-0.5, 0.5, 1600)
        sf.write(clip.path, np.pad(sound, 8000), 16000)
    whole = prepare(manifest, tmp_path / "whole", workers=1).corpus
    corpus = prepare(manifest, tmp_path / "c", workers=1, trim_db=60).corpus
    assert whole.lengths.tolist() == [17600] * 3
    assert corpus.lengths.tolist() == [1600] * 3
    assert corpus.digest != whole.digest
    assert prepare(manifest, tmp_path / "c", workers=1, trim_db=60).decoded == 0
    assert prepare(manifest, tmp_path / "c", workers=1, trim_db=40).decoded == 3
    zero(corpus)
    with pytest.raises(DamagedCorpus, match=r"--sample-rate 16000 --trim-db 40$"):
        Corpus.open(tmp_path / "c")
    for wrong in (0.0, float("nan"), -60.0):
        with pytest.raises(UserError, match=r"trim_db=.*: a number of decibels above 0, such as 60"):
            prepare(manifest, tmp_path / "d", trim_db=wrong)


def test_what_opening_does_not_look_at_is_compared_when_it_is_read_first(
    make: MakeManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "_SAMPLE_BYTES", 0)
    zero(prepare(make(40), tmp_path / "c", workers=1).corpus)
    corpus = Corpus.open(tmp_path / "c")
    corpus.waveform(0)
    for read in (
        lambda: corpus.waveform(18),
        lambda: corpus.samples_of(18),
        lambda: corpus.check(range(40)),
        corpus.verify,
    ):
        with pytest.raises(DamagedCorpus, match="of 40 clips are damaged"):
            read()
    calls: list[int] = []
    monkeypatch.setattr(corpora.zlib, "crc32", lambda data: calls.append(1) or 0)
    corpus.waveform(0)
    assert not calls  # once a process


@pytest.mark.parametrize("features", ["log_mel", "waveform"])
def test_a_damaged_corpus_is_refused_before_anything_is_trained(
    tones_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: str
) -> None:
    shutil.copytree(tones_corpus, tmp_path / "tones")
    monkeypatch.setattr(corpora, "_SAMPLE_BYTES", 0)
    corpus = Corpus.open(tmp_path / "tones")
    zero(corpus, 0.01)
    experiment = resolve(Experiment().override({"data.corpus": "tones", "features": features}), corpus).experiment
    extractor = experiment.features.build(8000)
    with pytest.raises(DamagedCorpus, match="1 of 30 clips are damaged"):
        FeatureCache().packed(experiment, corpus, extractor, torch.device("cpu"))


def test_a_corpus_of_an_older_version_is_opened_and_checked_by_its_digest(make: MakeManifest, tmp_path: Path) -> None:
    prepare(make(), tmp_path / "c", workers=1)
    path = tmp_path / "c" / "index.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("checksum", "max_seconds")}
    path.write_text(json.dumps(old))
    Corpus.open(tmp_path / "c").verify()
    assert prepare(make(), tmp_path / "c", workers=1).decoded == 0
    path.write_text(json.dumps({**old, "columns": {**old["columns"], "fold": [2] * 12}}))
    with pytest.raises(UserError, match=r"index.json: damaged"):
        Corpus.open(tmp_path / "c")


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_index_is_opened_or_refused(small_index: tuple[Path, str], data: st.DataObject) -> None:
    """An index with wrong values and the right checksum, as an archive may bring one."""
    directory, text = small_index
    index = json.loads(text)
    nasty = st.sampled_from(
        [None, -1, 0, 2**70, 1e300, float("nan"), "", "../../x", [], {}, [1], True, "x" * 5000, "\udce9"]
    )
    for _ in range(data.draw(st.integers(1, 3))):
        columns = data.draw(st.booleans())
        where = index["columns"] if columns and isinstance(index.get("columns"), dict) else index
        if not where:
            continue
        key = data.draw(st.sampled_from(sorted(where)))
        if columns and isinstance(where[key], list) and where[key] and data.draw(st.booleans()):
            where[key][data.draw(st.integers(0, len(where[key]) - 1))] = data.draw(nasty)
        elif data.draw(st.integers(0, 9)) == 0:
            del where[key]
        else:
            where[key] = data.draw(nasty)
    rest = json.dumps(index)[1:].encode()
    (directory / "index.json").write_bytes(b'{\n"checksum": %d,\n' % zlib.crc32(rest) + rest)
    try:
        corpus = Corpus.open(directory)
        corpus.verify()
    except UserError:
        return
    assert len(corpus.clips) == len(corpus) == len(corpus.targets)
    describe(corpus)


@pytest.fixture
def small_index(make: MakeManifest, tmp_path: Path) -> tuple[Path, str]:
    prepare(make(3), tmp_path / "c", workers=1)
    index = json.loads((tmp_path / "c" / "index.json").read_text())
    del index["checksum"]
    return tmp_path / "c", json.dumps(index)


# -- names and files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_names_that_are_not_utf8_are_prepared(tmp_path: Path, workers: int) -> None:
    root = os.fsencode(tmp_path / "set")
    for folder in (b"caf\xe9", b"th\xe9", b"tee"):
        os.makedirs(root + b"/" + folder)
        for i in range(12):
            sf.write(tmp_path / "x.flac", np.random.default_rng(i).uniform(-0.5, 0.5, 4000), 8000)
            os.rename(tmp_path / "x.flac", root + b"/" + folder + b"/\xff%d.flac" % i)
    manifest = sources.read(tmp_path / "set")
    assert manifest.classes == ("caf\\xe9", "tee", "th\\xe9")
    report = prepare(manifest, tmp_path / "c", workers=workers, on_bad="refuse")
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.clips == manifest.clips
    assert corpus.clips[0].path.is_file()
    assert all(text.isprintable() for text in (*corpus.ids, *corpus.classes))
    assert prepare(manifest, tmp_path / "c", workers=workers).decoded == 0
    json.dumps(describe(report.corpus).to_dict()).encode("utf-8")


def test_paths_that_no_file_can_have_are_bad_clips(make: MakeManifest, tmp_path: Path) -> None:
    bad = [Clip(f"{i}", tmp_path / name, ("a",), row=i) for i, name in enumerate(["a\0b.wav", "a" * 5000, "x/" * 2500])]
    report = prepare(make(4, clips=(*make(4).clips, *bad)), tmp_path / "c", workers=1)
    assert [b.reason for b in report.bad] == [
        "cannot be read: its path holds a NUL character",
        "cannot be read: File name too long",
        "cannot be read: File name too long",
    ]
    assert all(len(str(b)) < 300 for b in report.bad)


def test_one_file_with_two_labels_is_bad_by_whatever_name(make: MakeManifest, tmp_path: Path) -> None:
    good = make(4).clips
    path = good[0].path
    (tmp_path / "src" / "soft.wav").symlink_to(path)
    os.link(path, tmp_path / "src" / "hard.wav")
    others = [
        path.parent / "." / ".." / "src" / path.name,
        tmp_path / "src" / "soft.wav",
        tmp_path / "src" / "hard.wav",
    ]
    for i, other in enumerate(others):
        spelt = Path(f"{path.parent}/./../src/{path.name}") if i == 0 else other
        said = Clip("other", spelt, ("b",), row=9)
        report = prepare(make(4, clips=(*good, said)), tmp_path / f"c{i}", workers=1)
        assert {b.id: b.reason for b in report.bad} == {
            "0000.wav": "labelled a here and b as other (row 9): the same file",
            "other": "labelled b here and a as 0000.wav (row 2): the same file",
        }
        again = dataclasses.replace(said, labels=("a",))  # twice the same is no contradiction, nor is another part
        part = dataclasses.replace(said, id="part", start=0.05)
        assert prepare(make(4, clips=(*good, again, part)), tmp_path / f"d{i}", workers=1).bad == ()


def test_the_way_around_bad_clips_is_the_options_name(make: MakeManifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"leave them out: --on-bad skip \(in Python: on_bad=\"skip\"\)"):
        prepare(bad_manifest(make, tmp_path)[0], tmp_path / "c", workers=1, on_bad="refuse")


FRAGILE = """
import os
def work(job):
    code = job["code"]
    if code == "raise":
        raise ValueError("asked to")
    if code is not None:
        os._exit(code) if code > 0 else os.kill(os.getpid(), -code)
    print("noise on standard output must not disturb the replies")
    return {"ok": code}, b"payload"
"""


def test_a_worker_that_dies_costs_its_job_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    jobs = [{"code": c} for c in (None, 3, None, "raise", None, -9, None)]
    replies = list(ordered_map("fragile:work", jobs, 2))
    ok = ({"ok": None}, b"payload")
    assert [r if isinstance(r, tuple) else "died" for r in replies] == [ok, "died", ok, "died", ok, "died", ok]
    died = [str(r) for r in replies if isinstance(r, WorkerDied)]
    assert "exit code 3" in died[0]
    assert "ValueError: asked to" in died[1]
    assert "SIGKILL" in died[2]


def test_esc10(esc10_root: Path, tmp_path: Path) -> None:
    manifest = sources.read(esc10_root)
    kept = tuple(c for k in manifest.classes for c in [c for c in manifest.clips if c.labels == (k,)][:4])
    report = prepare(dataclasses.replace(manifest, clips=kept), tmp_path / "c")
    assert (report.n, report.bad) == (40, ())
    assert report.corpus.class_counts().tolist() == [4] * 10
    assert describe(report.corpus).sample_rates == {44100: 40}
    info = sf.info(kept[0].path)
    assert report.corpus.seconds[0] == pytest.approx(info.duration, abs=1e-3)
