"""Packing: the same bytes for any number of workers and any interruption; bad clips named; corpora opened and verified."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audio_cls.data import sources
from audio_cls.data.audio import load, to_float
from audio_cls.data.corpus import Corpus
from audio_cls.data.describe import describe
from audio_cls.data.manifest import Clip, Manifest
from audio_cls.data.packing import prepare
from audio_cls.data.workers import WorkerDied, ordered_map
from audio_cls.errors import UserError

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
