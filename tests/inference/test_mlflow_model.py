"""Runs as models of MLflow: logged when they complete, loaded and served without pickles, promoted to a name."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from audio_cls.cli import main
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace
from audio_cls.inference.opening import open_labeller, open_labellers
from audio_cls.tracking import RunInfo, Tracker
from audio_cls.tracking.registry import logged_model_id, model_versions
from audio_cls.tracking.store import database_uri
from tests.commands import call
from tests.own_parts import as_new, write_tiny
from tests.servers import free_port


def train(root: Path, *words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["--workspace", str(root), "train", "--set", "data.corpus=tones", *words]) == 0


@pytest.fixture(scope="module")
def workspace(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the same data and split, `good` and `bad`."""
    root = tmp_path_factory.mktemp("models")
    (root / "corpora").mkdir()
    (root / "corpora" / "tones").symlink_to(tones_corpus)
    train(root, "--set", "training.epochs=6", "--set", "optimizer.lr=1e-2", "--name", "good")
    train(root, "--set", "training.epochs=1", "--set", "optimizer.lr=1e-6", "--name", "bad")
    return root


@pytest.fixture
def copied(workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace, to register models in."""
    shutil.copytree(workspace, tmp_path / "w", symlinks=True)
    return tmp_path / "w"


@pytest.fixture
def clip(tones_corpus: Path) -> Path:
    return tones_corpus.parents[1] / "source" / "audio" / "hum0.wav"


def info_of(root: Path, name: str) -> RunInfo:
    return Tracker(Workspace(root)).resolve(name)


def load(root: Path, uri: str) -> Any:
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(database_uri(root / "mlflow.db"))
    try:
        return mlflow.pyfunc.load_model(uri)
    finally:
        mlflow.set_tracking_uri(before)


def test_a_loaded_model_labels_paths_bytes_and_arrays_as_the_run_does(
    workspace: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    info = info_of(workspace, "good")
    model = load(workspace, f"runs:/{info.run_id}/model")
    wanted = open_labeller("good", workspace=workspace).predict(clip)
    samples, rate = sf.read(clip, dtype="float32")
    tables = {
        "path": model.predict(str(clip)),
        "paths": model.predict([str(clip)] * 2),
        "path in a dictionary": model.predict({"audio": [str(clip)] * 2}),
        "bytes": model.predict(clip.read_bytes()),
        "table": model.predict(pd.DataFrame({"audio": [str(clip), clip.read_bytes()]}, index=[5, 3])),
        "arrays": model.predict({"audio": [samples, samples]}, params={"sample_rate": rate}),
    }
    for what, table in tables.items():
        assert list(table.columns) == ["label", "score", "beep", "hiss", "hum"], what
        for row in table.to_dict("records"):
            assert {name: pytest.approx(row[name]) for name in wanted} == wanted, what
            assert (row["label"], row["score"]) == next(iter(wanted.items())), what
    assert len(tables["paths"]) == len(tables["path in a dictionary"]) == 2
    example = model.input_example
    assert list(model.predict(example).columns) == list(tables["path"].columns)
    assert model.metadata.signature.outputs.input_names() == list(tables["path"].columns)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.wav", "row 0: nowhere.wav"),
        (b"no sound", r"row 0 \(8 bytes\): cannot be decoded"),
        ([None], r"row 0 \(NoneType\): empty"),
        ({"audio": [np.zeros((2, 3))]}, r"an array of shape \(2, 3\)"),
    ],
)
def test_what_is_no_sound_is_named(workspace: Path, given: Any, said: str) -> None:
    model = load(
        workspace, f"models:/{logged_model_id(Tracker(Workspace(workspace)), info_of(workspace, 'good').run_id)}"
    )
    with pytest.raises(UserError, match=said):
        model.predict(given)


def test_a_model_of_own_parts_runs_no_code_that_was_sent(
    tones_corpus: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workspace in which a part was run finds it again; elsewhere its file must be loaded by whoever wants the model."""
    root = tmp_path / "w"
    (root / "corpora").mkdir(parents=True)
    (root / "corpora" / "tones").symlink_to(tones_corpus)
    file = write_tiny(tmp_path / "mine")
    with as_new():
        train(root, str(file), "--name", "own")
    uri = f"runs:/{info_of(root, 'own').run_id}/model"
    shutil.rmtree(tmp_path / "mine")
    monkeypatch.setenv("AUDIO_CLS_WORKSPACE", str(root))
    with as_new():
        assert len(load(root, uri).predict(str(clip))) == 1
    monkeypatch.setenv("AUDIO_CLS_WORKSPACE", str(tmp_path))
    with as_new(), pytest.raises(UserError, match="was never run in this workspace"):
        load(root, uri)
    (model,) = (root / "mlruns").glob("*/models/*/artifacts")
    assert not list(model.rglob("*.py"))


def test_no_model_of_a_run_is_logged_when_none_is_asked_for(copied: Path) -> None:
    train(copied, "--set", "training.epochs=1", "--set", "seed=7", "--name", "plain", "--log-model", "none")
    info = info_of(copied, "plain")
    tracker = Tracker(Workspace(copied))
    assert logged_model_id(tracker, info.run_id) is None
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["--workspace", str(copied), "promote", "plain"]) == 0
    assert logged_model_id(tracker, info.run_id) is not None, "promote logs it"
    assert [(v.name, v.version, v.aliases) for v in model_versions(tracker)] == [("clips-multiclass", 1, ("champion",))]


def test_promotion_says_what_it_replaces_and_whether_that_was_better(
    copied: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no model is registered yet: audio-cls promote" in call(capsys, copied, "models")
    shown = call(capsys, copied, "promote", "bad", "--as", "tones/demo")
    assert "tones-demo@champion is version 1 now: run bad" in shown
    assert "replaces" not in shown
    shown = call(capsys, copied, "promote", "good", "--as", "tones-demo")
    assert "is version 2 now: run good" in shown
    assert "it replaces version 1: run " in shown
    assert "on the same 6 validation clips" in shown
    assert "warning" not in shown
    assert "is run good" in call(capsys, copied, "promote", "good", "--as", "tones-demo")
    shown = call(capsys, copied, "promote", "bad", "--as", "tones-demo")
    back = f"audio-cls promote {info_of(copied, 'good').run_id[:8]} --as tones-demo --alias champion"
    assert f"it is worse than what it replaces. To take it back: {back}" in shown
    assert "champion is version 1 now" in shown
    call(capsys, copied, *back.split()[1:])
    shown = call(capsys, copied, "models")
    assert [line.split()[:3] for line in shown.splitlines() if "tones-demo" in line] == [
        ["tones-demo", "2", "champion"],
        ["tones-demo", "1", "bad"],
    ]
    assert "no registered model 'tones-dem'. Allowed: tones-demo. Did you mean" in call(
        capsys, copied, "models", "tones-dem", code=2
    )
    assert "Allowed: letters" in call(capsys, copied, "promote", "good", "--alias", "v1", code=2)
    champion = open_labeller("tones-demo@champion", workspace=copied)
    assert champion.name == "tones-demo@champion"
    assert champion.predict(clip) == open_labeller("good", workspace=copied).predict(clip)
    assert open_labeller("tones-demo/1", workspace=copied).predict(clip) == open_labeller(
        "bad", workspace=copied
    ).predict(clip)
    good = info_of(copied, "good").run_id
    two = open_labellers(["good", good], Tracker(Workspace.of(copied)))
    assert [labeller.name for labeller in two] == ["good", f"good ({good})"]
    assert open_labeller("tones-demo", workspace=copied).name == "tones-demo@champion"
    with pytest.raises(UserError, match="Did you mean 'champion'"):
        open_labeller("tones-demo@champoin", workspace=copied)


def test_a_damaged_model_is_one_message(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, copied, "promote", "good", "--as", "m")
    source = model_versions(Tracker(Workspace(copied)))[0].source
    (Path(source) / "data" / "run" / "experiment.json").write_text("{}")
    with pytest.raises(UserError, match="damaged or changed since the run"):
        open_labeller("m@champion", workspace=copied)
    shutil.rmtree(source)
    with pytest.raises(UserError, match="its files are gone"):
        open_labeller("m@champion", workspace=copied)


@contextlib.contextmanager
def served(root: Path, uri: str, folder: Path) -> Iterator[str]:
    """The address of `mlflow models serve`, ended by its own process group."""
    port = free_port()
    env = {**os.environ, "MLFLOW_TRACKING_URI": database_uri(root / "mlflow.db"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    env |= {"AUDIO_CLS_WORKSPACE": str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = ["mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    with open(folder / "serve.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=env,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 200
        while True:
            with contextlib.suppress(OSError), urlopen(f"{address}/ping", timeout=5):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail((folder / "serve.log").read_text()[-3000:])
            time.sleep(0.2)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(address: str, body: bytes, kind: str = "application/json") -> tuple[int, str]:
    request = Request(f"{address}/invocations", data=body, headers={"Content-Type": kind})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_a_server_answers_a_wav_and_opens_no_file_of_its_machine(
    copied: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, copied, "promote", "good", "--as", "tones-demo")
    wanted = open_labeller("good", workspace=copied).predict(clip)
    sound = base64.b64encode(clip.read_bytes()).decode()
    with served(copied, "models:/tones-demo@champion", tmp_path) as address:
        for body in (
            {"dataframe_split": {"columns": ["audio"], "data": [[sound]]}},
            {"dataframe_records": [{"audio": sound}]},
        ):
            status, text = ask(address, json.dumps(body).encode())
            (row,) = json.loads(text)["predictions"]
            assert (status, row["label"]) == (200, next(iter(wanted)))
            assert {name: pytest.approx(row[name]) for name in wanted} == wanted
        for body, kind in (
            (json.dumps({"instances": [{"audio": str(clip)}]}).encode(), "application/json"),
            (f"audio\n{clip}\n".encode(), "text/csv"),
        ):
            status, text = ask(address, body, kind)
            assert (status, "row 0: a text. Allowed: the bytes of an audio file" in text) == (400, True), text
        broken = {"dataframe_records": [{"audio": base64.b64encode(b"no sound").decode()}]}
        status, text = ask(address, json.dumps(broken).encode())
        assert (status, "row 0 (8 bytes): cannot be decoded" in text, "Traceback" in text) == (400, True, False), text
