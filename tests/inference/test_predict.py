"""`predict`: faulty files beside good ones, damaged runs, weights that are not finite. One clear error each, never a traceback."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.experiment import Experiment
from audio_cls.inference import prediction
from audio_cls.inference.run_labeller import RunLabeller
from audio_cls.inference.streaming import AudioStream
from audio_cls.runs.own_parts import read_recorded
from audio_cls.tracking import RunInfo, Tracker
from audio_cls.training import checkpoint
from tests.commands import call
from tests.own_parts import train_first

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_first(tmp_path_factory.mktemp("predict"), tones_corpus)


@pytest.fixture(scope="module")
def info(workspace: Path) -> RunInfo:
    return Tracker(Workspace(workspace)).resolve("first")


@pytest.fixture(scope="module")
def artifacts(workspace: Path, info: RunInfo) -> Path:
    return Tracker(Workspace(workspace)).download(info.run_id, "experiment.json").parent


@pytest.fixture
def damaged(workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace, to be damaged."""
    shutil.copytree(workspace, tmp_path / "w", symlinks=True)
    return tmp_path / "w"


@pytest.fixture
def clips(tones_corpus: Path) -> Path:
    return tones_corpus.parents[1] / "source" / "audio"


def test_a_faulty_file_does_not_keep_the_others_from_their_labels(
    workspace: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    words = [str(tmp_path / "missing.wav"), str(clips / "hum0.wav"), str(tmp_path / "broken.wav"), "x" * 5000, "a\0b"]
    shown = call(capsys, workspace, "predict", "first", *words, code=1)
    assert re.search(r"hum0\.wav: \w+ 0\.\d+", shown)
    assert re.search(r"missing\.wav: .*missing", shown)
    assert "broken.wav: " in shown
    assert "4 of 5 files could not be labelled" in shown
    shown = call(capsys, workspace, "predict", "first", "--json", *words[:2], code=1)
    rows = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    assert [set(row) for row in rows] == [{"path", "error"}, {"path", "model", "labels", "seconds", "windows"}]
    assert "none of 1 file(s) could be read" in call(capsys, workspace, "predict", "first", words[0], code=2)


def test_an_empty_path_is_not_the_current_folder(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "an empty path ('')" in call(capsys, workspace, "predict", "first", "", code=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(
    damaged: Path, clips: Path, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = damaged.glob("mlruns/*/*/artifacts/weights/best.safetensors")
    stored = checkpoint.read(path)
    name = next(k for k, v in stored.tensors.items() if v.ndim == 4)
    stored.tensors[name][0, 0, 0, 0] = value
    checkpoint.write(path, stored.tensors, stored.state)
    shown = call(capsys, damaged, "predict", "first", str(clips / "hum0.wav"), code=2)
    assert f"best.safetensors: damaged: the weights {name} are not all finite numbers" in shown


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("experiment.json", "", "not an experiment in JSON"),
        ("experiment.json", "[1", "not an experiment in JSON"),
        ("experiment.json", '{"seed": 1}', "its digest is"),
        ("experiment.json", "\0\0", "not an experiment in JSON"),
        ("classes.json", "", "classes.json: damaged"),
        ("classes.json", "{}", "classes.json: damaged: classes: Field required"),
        ("classes.json", '{"classes": [], "task": "multiclass"}', "classes.json: damaged: classes"),
        ("classes.json", '{"classes": ["a", "a", "b"], "task": "multiclass"}', "a class is named twice"),
        ("classes.json", '{"classes": ["a", "b"], "task": "multiclass"}', "do not fit each other"),
        ("classes.json", '{"classes": ["a", "b", "c"], "task": "ranking"}', "classes.json: damaged: task"),
    ],
)
def test_a_damaged_run_is_one_message(
    damaged: Path, clips: Path, name: str, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = damaged.glob(f"mlruns/*/*/artifacts/{name}")
    path.write_text(text, encoding="utf-8")
    shown = call(capsys, damaged, "predict", "first", str(clips / "hum0.wav"), code=2)
    assert said in shown
    assert shown.count("\n") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def damage(draw: st.DrawFn, text: str) -> bytes:
    """A JSON file with bytes flipped, cut short, or one of its values replaced or left out."""
    how = draw(st.sampled_from(("flip", "cut", "replace", "remove")))
    if how in ("flip", "cut"):
        data = bytearray(text.encode())
        place = draw(st.integers(0, len(data) - 1))
        if how == "cut":
            return bytes(data[:place])
        data[place] ^= 1 << draw(st.integers(0, 7))
        return bytes(data)
    value = json.loads(text)
    node, key = value, draw(st.sampled_from(sorted(value)))
    while isinstance(node[key], dict) and node[key] and draw(st.booleans()):
        node, key = node[key], draw(st.sampled_from(sorted(node[key])))
    if how == "remove":
        del node[key]
    else:
        node[key] = draw(JSON)
    return json.dumps(value).encode()


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", ["experiment.json", "classes.json"])
def test_no_damage_ends_in_a_traceback(
    data: st.DataObject, name: str, artifacts: Path, info: RunInfo, tmp_path: Path
) -> None:
    """A damaged file is refused, or (classes renamed, JSON laid out otherwise) means what it says."""
    folder = tmp_path / "run"
    if not folder.exists():
        shutil.copytree(artifacts, folder)
    original = (artifacts / name).read_bytes()
    (folder / name).write_bytes(data.draw(damage(original.decode())))
    try:
        experiment = Experiment.from_json(read_recorded(folder / "experiment.json", info.tags["experiment.digest"]))
        labeller = RunLabeller(folder, CPU, experiment)
    except UserError:
        return
    finally:
        (folder / name).write_bytes(original)
    assert len(set(labeller.classes)) == 3
    assert experiment.digest() == info.tags["experiment.digest"]
    assert np.isfinite(labeller.scores(np.zeros(8000, dtype=np.float32))).all()


def test_a_missing_file_costs_no_other_its_label(artifacts: Path, clips: Path) -> None:
    experiment = Experiment.from_json(read_recorded(artifacts / "experiment.json"))
    found: list[Any] = list(RunLabeller(artifacts, CPU, experiment).label([clips / "hum0.wav", clips / "nowhere.wav"]))
    assert abs(found[0].scores.sum() - 1) < 1e-6
    assert found[1].scores is None
    assert "missing" in found[1].error or "no such file" in found[1].error


def test_models_at_one_rate_decode_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{name}.wav" for name in "abc"]
    for k, path in enumerate(paths):
        soundfile.write(path, np.full(800, 0.1 * (k + 1)), 8000)
    decoded: list[tuple[str, int]] = []

    class Counted(AudioStream):
        def __init__(self, sound: Any, sample_rate: int) -> None:
            decoded.append((Path(sound).name, sample_rate))
            super().__init__(sound, sample_rate)

    monkeypatch.setattr(prediction, "AudioStream", Counted)

    def read(meter: prediction.Meter, rates: list[int]) -> list[float]:
        """Read all files by each model in turn; returns the median sample of each."""
        open_file = meter.opener(rates)
        return [float(np.median(np.concatenate(list(open_file(path, rate))))) for rate in rates for path in paths]

    meter = prediction.Meter()
    assert read(meter, [8000, 8000, 4000]) == pytest.approx(3 * [0.1, 0.2, 0.3], abs=0.02)
    assert decoded == [(path.name, rate) for rate in (8000, 4000) for path in paths]
    assert meter.seconds == pytest.approx(0.3)
    decoded.clear()
    monkeypatch.setattr(prediction, "KEPT_SAMPLES", 1700)
    assert read(prediction.Meter(), [8000, 8000]) == pytest.approx(2 * [0.1, 0.2, 0.3], abs=0.02)
    assert decoded == [(name, 8000) for name in ("a.wav", "b.wav", "c.wav", "c.wav")], "bounded memory"


def test_an_interrupt_leaves_whole_lines_and_one_sentence(workspace: Path, clips: Path, tmp_path: Path) -> None:
    to = tmp_path / "events.jsonl"
    words = ["predict", "first", str(clips / "hum0.wav"), "-", "--raw", "8000", "--timeline", "--threshold", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "audio_cls.cli", "--workspace", str(workspace), *words, "--json", "--to", str(to)],
        stdin=subprocess.PIPE,  # never written to: the second file has no end
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    try:
        patience = time.monotonic() + 120
        while not (to.exists() and to.stat().st_size) and time.monotonic() < patience and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1] == f"interrupted: 1 of 2 files done; what was written stays in {to}"
    text = to.read_text()
    assert text.endswith("\n")
    assert {Path(json.loads(line)["path"]).name for line in text.splitlines()} == {"hum0.wav"}


def test_names_with_line_breaks_and_folders_named_like_audio(
    workspace: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.wav").mkdir()
    shutil.copyfile(clips / "hum0.wav", tmp_path / "folder.wav" / "new\nline.wav")
    shown = call(capsys, workspace, "predict", "first", str(tmp_path))
    assert "folder.wav/new\\nline.wav: " in shown
    assert "1 file, " in shown
    to = tmp_path / "out.csv"
    call(capsys, workspace, "predict", "first", str(tmp_path), "--format", "csv", "--top", "1", "--to", str(to))
    with open(to, newline="", encoding="utf-8") as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)] == ["new\nline.wav"]
