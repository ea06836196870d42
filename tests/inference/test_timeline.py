"""Timelines and their formats; several models; standard input; files of every kind beside faulty ones."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf

import audio_cls as ac
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.inference.formats import clock
from audio_cls.inference.labeller import WindowScore
from audio_cls.inference.opening import find_run
from audio_cls.inference.prediction import label_files
from audio_cls.inference.timeline import Merging, merge_windows, thresholds_of
from audio_cls.tracking import Tracker
from tests.commands import call
from tests.own_parts import SMALL

TWO: Any = SimpleNamespace(classes=["a", "b"], task="multilabel", thresholds=np.array([0.3, 0.6]))


def windows(rows: list[tuple[float, float]], length: float = 2.0, hop: float = 1.0) -> list[WindowScore]:
    return [WindowScore(i * hop, i * hop + length, np.array(row)) for i, row in enumerate(rows)]


def events(found: list[WindowScore], **how: Any) -> list[tuple[str, float, float, float]]:
    return [(e.label, e.start, e.end, round(e.score, 6)) for e in merge_windows(found, TWO, Merging(**how))]


def test_windows_become_events() -> None:
    """A window of 2 s every second speaks for the second around its middle; the first and the last one to the ends."""
    rows = [(0.9, 0.0), (0.2, 0.0), (0.2, 0.7), (0.8, 0.9), (0.4, 0.1), (0.1, 0.1)]
    found = windows(rows)
    assert events(found) == [("a", 0.0, 1.5, 0.9), ("b", 2.5, 4.5, 0.8), ("a", 3.5, 5.5, 0.6)]
    assert events(found, merge_gap=1.9) == [("a", 0.0, 1.5, 0.9), ("b", 2.5, 4.5, 0.8), ("a", 3.5, 5.5, 0.6)]
    assert events(found, merge_gap=2.0) == [("b", 2.5, 4.5, 0.8), ("a", 0.0, 5.5, 0.7)]
    assert events(found, min_length=1.6) == [("b", 2.5, 4.5, 0.8), ("a", 3.5, 5.5, 0.6)]
    assert events(found, threshold=0.85) == [("a", 0.0, 1.5, 0.9), ("b", 3.5, 4.5, 0.9)]
    apart = [
        ("a", 0.0, 0.5, 0.9),
        ("a", 3.0, 3.5, 0.8),
        ("a", 4.0, 4.5, 0.4),
        ("b", 2.0, 2.5, 0.7),
        ("b", 3.0, 3.5, 0.9),
    ]
    assert sorted(events(windows(rows, length=0.5))) == apart
    assert events([]) == []
    assert events(windows(rows[:1])) == [("a", 0.0, 2.0, 0.9)]
    with pytest.raises(UserError, match="a probability, from 0 to 1"):
        Merging(threshold=1.5)
    with pytest.raises(UserError, match="min_length"):
        Merging(min_length=float("nan"))
    assert thresholds_of(TWO)[0].tolist() == [0.3, 0.6]
    assert [clock(7.504), clock(67.5), clock(36067.499)] == ["7.50", "1:07.50", "10:01:07.50"]


@pytest.fixture(scope="module")
def place(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two runs, `long` and `short`, and a study's run with two trials that are copies in name only."""
    root = tmp_path_factory.mktemp("timeline")
    (root / "corpora").mkdir()
    (root / "corpora" / "tones").symlink_to(tones_corpus)
    base = ac.Experiment().override(SMALL)
    for name, changes in (
        ("long", {"training.epochs": 2}),
        ("short", {"data.clip_seconds": 0.5, "data.evaluation": "windows"}),
        ("halved", {"data.labels": {"kind": "one_against_rest", "target": "hum"}}),
    ):
        ac.train(base.override(changes), name=name, workspace=root, progress=False, device="cpu")
    tracker = Tracker(Workspace(root))
    tracker.experiment("searches")
    parent = tracker.start(
        "searches",
        "study s",
        kind="study",
        tags={"study": "s", "study.metric": "val/loss", "study.direction": "minimize"},
    )
    for name, loss in (("s 000", 0.7), ("s 001", 0.5), ("s 002", 0.9)):
        run = tracker.start("searches", name, kind="trial", parent=parent.id, tags={"study": "s"})
        run.final({"best/loss": loss}, None)
        run.finish("COMPLETE")
    parent.finish("COMPLETE")
    tracker.flush()
    return root


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of hum, then three of hiss, then three of hum."""
    rng, t = np.random.default_rng(0), np.arange(24000) / 8000
    hum, hiss = 0.3 * np.sin(2 * np.pi * 200 * t) + 0.02 * rng.standard_normal(24000), 0.1 * rng.standard_normal(24000)
    path = tmp_path_factory.mktemp("recording") / "a long day.wav"
    sf.write(path, np.concatenate([hum, hiss, hum]), 8000)
    return path


def lines(shown: str, start: str) -> list[str]:
    return [line for line in shown.splitlines() if line.startswith(start)]


def test_formats_tell_the_same_events(
    place: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", "long", str(recording), "--timeline", "--threshold", "0.2", "--hop", "0.5"]
    expected = list(
        ac.open_labeller("long", workspace=place, device="cpu").timeline(recording, 0.5, Merging(threshold=0.2))
    )
    assert len(expected) >= 2
    call(capsys, place, *words, "--format", "jsonl", "--to", str(tmp_path / "x.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [(row["label"], row["score"]) for row in rows] == [(e.label, e.score) for e in expected]
    assert all("windows of 1 s every 0.496 s, threshold 0.2" in row["windows"] for row in rows)
    shown = call(capsys, place, *words)
    assert "times real time" in shown
    assert len([line for line in shown.splitlines() if line.endswith(("hum", "hiss", "beep"))]) == len(expected)
    call(capsys, place, *words, "--format", "csv", "--to", str(tmp_path / "x.csv"))
    table = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [float(row["start"]) for row in table] == pytest.approx([e.start for e in expected], abs=1e-3)
    call(capsys, place, *words, "--format", "audacity", "--to", str(tmp_path / "x.txt"))
    first = (tmp_path / "x.txt").read_text().splitlines()[0].split("\t")
    assert (float(first[0]), first[2]) == (pytest.approx(expected[0].start), expected[0].label)
    call(capsys, place, *words, "--format", "rttm", "--to", str(tmp_path / "x.rttm"))
    cells = (tmp_path / "x.rttm").read_text().splitlines()[0].split()
    assert cells[:3] == ["SPEAKER", "a_long_day", "1"]
    assert cells[7] == expected[0].label
    assert len(cells) == 10
    labels = {e.label for e in ac.open_labeller("long", workspace=place).timeline(recording, merging=Merging(0.0))}
    assert labels == {"hum", "hiss", "beep"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "rttm"], "holds events: add --timeline"),
        (["--format", "jsno"], "no format 'jsno'. Allowed: audacity, csv, jsonl, rttm, table. Did you mean 'jsonl'?"),
        (["--json", "--format", "csv"], "--json is --format jsonl"),
        (["--threshold", "0.5"], "add --timeline"),
        (["--average"], "an average needs two models"),
        (["--beside", "halved", "--average"], "they know other labels (beep, hiss"),
        (["--beside", "short", "--average", "--timeline"], "have no average timeline: windows of 1 s"),
        (["--beside", "short", "--timeline", "--format", "rttm"], "the events of one model, not of 2"),
        (["--raw", "8000"], "name - among the files"),
        (["--beside", "shrot"], "Did you mean 'short'?"),
    ],
)
def test_what_does_not_fit_is_one_message(
    words: list[str], said: str, place: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, place, "predict", "long", str(recording), *words, code=2)
    assert said in shown
    assert shown.count("\n") == 1


def test_models_side_by_side_and_their_average(
    place: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labellers = [ac.open_labeller(name, workspace=place, device="cpu") for name in ("long", "short")]
    ((first, second, mean),) = label_files(labellers, [recording], average=True)
    assert mean[1].scores == pytest.approx((first[1].scores + second[1].scores) / 2)
    words = ["predict", "long", str(recording), "--beside", "short"]
    shown = call(capsys, place, *words, "--average", "--top", "1")
    assert len(lines(shown, str(recording))) == 3
    assert f"{recording}: average: " in shown
    assert "note: long: clips longer than 1 s are judged by their middle 1 s" in shown
    assert "note: short: clips longer than 0.5 s are judged by windows of 0.5 s" in shown
    rows = call(capsys, place, *words, "--timeline", "--threshold", "0", "--json")
    found = [json.loads(line) for line in lines(rows, "{")]
    assert {row["model"] for row in found} == {"long", "short"}
    same = call(capsys, place, "predict", "long", str(recording), "--beside", "long", "--average", "--timeline",
                "--threshold", "0", "--json")  # fmt: skip
    alone = call(capsys, place, "predict", "long", str(recording), "--timeline", "--threshold", "0", "--json")
    pairs = list(zip(lines(same, "{"), lines(alone, "{"), strict=True))
    assert all(json.loads(a)["score"] == pytest.approx(json.loads(b)["score"]) for a, b in pairs)


def test_all_of_a_file_is_judged_where_a_hop_is_asked_for(
    place: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labeller = ac.open_labeller("long", workspace=place, device="cpu")
    middle, whole = labeller.predict(recording), labeller.predict(recording, hop_seconds=0.5)
    assert middle["hiss"] > whole["hiss"]  # the middle second is hiss
    row = json.loads(lines(call(capsys, place, "predict", "long", str(recording), "--hop", "0.5", "--json"), "{")[0])
    assert row["labels"]["hiss"] == pytest.approx(whole["hiss"], abs=1e-6)
    assert "windows of 1 s every 0.5 s, the mean" in row["windows"]
    said = ac.open_run("long", workspace=place).predict(recording)
    assert said == pytest.approx(middle, abs=1e-6)


@pytest.mark.parametrize("kind", ["wav", "flac", "pcm", "pcm timeline"])
def test_standard_input_is_labelled_as_the_file_is(
    kind: str, place: Path, recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, rate = sf.read(recording, dtype="int16")
    out = io.BytesIO()
    sf.write(out, samples, rate, format="FLAC" if kind == "flac" else "WAV", subtype="PCM_16")
    data = samples.tobytes() if kind.startswith("pcm") else out.getvalue()
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=os.fdopen(reading, "rb"), isatty=lambda: False))
    feeder = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=writing)
    os.close(writing)
    how = ["--timeline", "--threshold", "0"] if kind == "pcm timeline" else []
    assert feeder.stdin is not None
    feeder.stdin.write(data)
    feeder.stdin.close()
    raw = ["--raw", str(rate)] if kind.startswith("pcm") else []
    shown = call(capsys, place, "predict", "short", "-", "--json", *how, *raw)
    feeder.wait()
    expected = call(capsys, place, "predict", "short", str(recording), "--json", *how)
    pairs = list(zip(lines(shown, "{"), lines(expected, "{"), strict=True))
    assert pairs
    for ours, theirs in pairs:
        one, other = json.loads(ours), json.loads(theirs)
        assert one.pop("path") == "-"
        assert other.pop("path") == str(recording)
        assert one.pop("labels", None) == pytest.approx(other.pop("labels", None), abs=1e-6)
        assert {k: v for k, v in one.items() if k != "score"} == {k: v for k, v in other.items() if k != "score"}


def test_every_kind_of_file_beside_faulty_ones(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of all of them: the good ones are labelled, the others named, in both forms."""
    folder = tmp_path / "folder"
    folder.mkdir()
    x = np.random.default_rng(0).standard_normal((12000, 2)).astype(np.float32) * 0.1
    good = {
        "8k.wav": (8000, "PCM_16"),
        "24bit.wav": (44100, "PCM_24"),
        "float.wav": (48000, "FLOAT"),
        "lossless.flac": (22050, "PCM_16"),
    }
    for name, (rate, subtype) in good.items():
        sf.write(folder / name, x, rate, subtype=subtype)
    odd = os.fsencode(folder) + b"/caf\xe9.wav"
    with open(odd, "wb") as file:
        file.write((folder / "8k.wav").read_bytes())
    sf.write(folder / "5ms.wav", x[:40], 8000)
    sf.write(folder / "zeros.wav", x * 0, 8000)
    (folder / "none.wav").touch()
    (folder / "cut.wav").write_bytes((folder / "8k.wav").read_bytes()[:3000])
    x[5000] = np.nan
    sf.write(folder / "nan.wav", x, 8000, subtype="FLOAT")
    (folder / "notes.txt").write_text("no audio")
    why = {
        "5ms.wav": "too short",
        "zeros.wav": "silent",
        "none.wav": "0 bytes",
        "cut.wav": "cut short",
        "nan.wav": "not finite",
    }
    for how in ([], ["--timeline", "--threshold", "0"]):
        shown = call(capsys, place, "predict", "short", str(folder), "--json", *how, code=1)
        found = [json.loads(line) for line in lines(shown, "{")]
        errors = {Path(row["path"]).name: row["error"] for row in found if "error" in row}
        assert errors.keys() == why.keys()
        assert all(why[name] in text for name, text in errors.items())
        labelled = {os.fsencode(Path(row["path"]).name) for row in found if "error" not in row}
        assert labelled == {*map(os.fsencode, good), b"caf\xe9.wav"}
        assert "5 of 10 files could not be labelled" in shown
    shown = call(capsys, place, "predict", "short", str(folder), code=1)
    assert "caf\\xe9.wav: " in shown


def test_a_study_means_its_best_run(place: Path) -> None:
    tracker = Tracker(Workspace(place))
    assert find_run("s", tracker).name == "s 001"
    assert find_run("study s", tracker).name == "s 001"
    assert find_run("long", tracker).name == "long"
    with pytest.raises(UserError, match="no run has the id or the name 'nowhere'"):
        find_run("nowhere", tracker)
    with pytest.raises(UserError, match=r"no artifact 'weights/best\.safetensors'"):  # a trial without weights
        ac.open_labeller("s", workspace=place)
