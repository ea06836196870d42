"""Where runs and studies are kept: one rule for all commands, and no password where others can read it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from audio_cls.cli import app as command_line
from audio_cls.core.errors import UserError
from audio_cls.core.masking import encode_user, hide_addresses, mask, mask_address
from audio_cls.core.workspace import Workspace
from audio_cls.queue.storage import Heartbeat, open_storage
from audio_cls.tracking import Tracker
from audio_cls.tracking.environment import environment_tags
from tests.servers import PostgreSQL, mlflow_server

AUDIO_CLS = [sys.executable, "-m", "audio_cls.cli"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:s3cret@host:5432/db", "postgresql://***@host:5432/db"),
        ("http://me:s3@cret@host", "http://***@host"),
        ("to postgresql://me:s3cret@host/db failed", "to postgresql://***@host/db failed"),
        ("postgresql://me@host/db?sslmode=require&password=s3cret&x=1", "postgresql://***@host/db?sslmode=require&password=***&x=1"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("somebody@example.org", "somebody@example.org"),
        ("sqlite:////home/me/optuna.db", "sqlite:////home/me/optuna.db"),
    ],
)  # fmt: skip
def test_what_is_masked(text: str, shown: str) -> None:
    assert mask(text) == shown
    assert mask(shown) == shown


def test_an_address_with_more_than_one_at_sign() -> None:
    assert encode_user("postgresql://me:p@ss@host/db?x=a@b") == "postgresql://me:p%40ss@host/db?x=a@b"
    for plain in ("postgresql://me:pass@host/db", "postgresql://host/db", "sqlite:///a@b.db", "://", "x"):
        assert encode_user(plain) == plain
    assert mask_address("http://me:p@ss 'w\"x@h") == "http://***@h"
    assert hide_addresses(["--storage", "postgresql://a:b 'c@h/d"], {"--storage": "S"})[0] == []


def test_a_command_line_without_its_passwords() -> None:
    names = {"--storage": "STORE", "--tracking": "TRACK"}
    words = [
        "python",
        "-m",
        "x",
        "--tracking=http://a:b@h",
        "study",
        "run",
        "s.py",
        "--storage",
        "postgresql://a:b@h/d",
        "--trials",
        "3",
    ]
    kept, environment = hide_addresses(words, names)
    assert kept == ["python", "-m", "x", "study", "run", "s.py", "--trials", "3"]
    assert environment == {"STORE": "postgresql://a:b@h/d", "TRACK": "http://a:b@h"}
    harmless = ["x", "--storage", "optuna.db", "--tracking=http://h:1", "--storage=", "--tracking"]
    assert hide_addresses(harmless, names) == (harmless, {})


def test_the_recorded_command_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["audio-cls", "study", "run", "s.py", "--storage", "postgresql://me:s3cret@h/d"])
    assert environment_tags()["env.command"].endswith("--storage 'postgresql://***@h/d'")


def test_the_option_comes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_CLS_TRACKING", "http://from-environment:1")
    assert Workspace.find(tmp_path).tracking == "http://from-environment:1"
    assert Workspace.find(tmp_path, "http://given:2").tracking == "http://given:2"
    assert Workspace.find(tmp_path, "").tracking is None
    assert Workspace(tmp_path).tracking is None
    assert Workspace.find(tmp_path, "").environment()["AUDIO_CLS_TRACKING"] == ""
    assert Tracker(Workspace.find(tmp_path)).uri == "http://from-environment:1"


@pytest.mark.parametrize(
    "words", [["--tracking", "http://given:2", "evaluate", "x"], ["evaluate", "x", "--tracking", "http://given:2"]]
)
def test_tracking_is_an_option_before_and_after_the_command(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Workspace] = []

    def opened(workspace: Workspace) -> None:
        seen.append(workspace)
        raise UserError("far enough")

    monkeypatch.setattr("audio_cls.tracking.Tracker", opened)
    done = CliRunner().invoke(command_line.cli, ["--workspace", str(tmp_path), *words])
    assert isinstance(done.exception, UserError)
    assert seen == [Workspace(tmp_path, "http://given:2")]


@pytest.mark.parametrize("address", ["postgresql://me:s3cret@h/d", "localhost:5000", "ftp://h"])
def test_what_is_no_mlflow_server_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no MLflow server\. Allowed: http://HOST:PORT") as error:
        Workspace(tmp_path, address)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:s3cret@127.0.0.1:1/db",
        "mysql://me:s3cret@h/db",
        "postgresql://me:s3cret@h:port/db",
        "postgresql://me:pa@s3cret@127.0.0.1:1/db",
        "postgresql://me:pa@s3cret@127.0.0.1:1/db?connect_timeout=1",
        "postgresql://me:pa 's3cret@127.0.0.1:1/db",
        "://me:pa 's3cret@h",
        "postgresql://me@127.0.0.1:1/db?password=s3cret",
    ],
)
def test_errors_about_a_storage_hold_no_password(address: str) -> None:
    if address.startswith("postgresql"):
        pytest.importorskip("psycopg")
    with pytest.raises(UserError) as error:
        open_storage(address)
    assert "s3cret" not in str(error.value)


def test_links_hold_no_password(tmp_path: Path) -> None:
    tracker = Tracker(Workspace(tmp_path, "http://me:s3cret@127.0.0.1:1"))
    assert tracker._address("") == "http://127.0.0.1:1"


def test_heartbeats_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIO_CLS_HEARTBEAT", "1,3")
    assert Heartbeat.usual() == Heartbeat(1, 3)
    monkeypatch.setenv("AUDIO_CLS_HEARTBEAT", "3,1")
    with pytest.raises(UserError, match="INTERVAL,GRACE"):
        Heartbeat.usual()


STUDY = """
from audio_cls.experiment import Experiment
from audio_cls.study import TPE, Study

BASE = Experiment.parse({{
    "data": {{"corpus": "tones", "sample_rate": 8000, "clip_seconds": 1.0}},
    "features": {{"kind": "log_mel", "n_fft": 256, "hop_length": 128, "n_mels": 32}},
    "training": {{"epochs": {epochs}, "batch_size": 16}},
}})
STUDY = Study("{name}", base=BASE, space=lambda t: {{"optimizer.lr": t.suggest_float("lr", 1e-4, 1e-2, log=True)}}, sampler=TPE(seed=0, startup_trials=9))
"""


@pytest.fixture
def root(tones_corpus: Path, tmp_path: Path) -> Path:
    (tmp_path / "corpora").symlink_to(tones_corpus.parent)
    return tmp_path


@pytest.mark.slow
def test_a_password_given_on_the_command_line_is_soon_gone_from_it(postgresql_server: PostgreSQL, root: Path) -> None:
    """Also from the processes that a search starts, its logs and its runs."""
    postgresql_server.create("addresses")
    (root / "s.py").write_text(STUDY.format(name="quiet", epochs=2))
    words = [
        *AUDIO_CLS,
        "--workspace",
        str(root),
        "study",
        "run",
        str(root / "s.py"),
        "--trials",
        "2",
        "--device",
        "cpu",
    ]
    words += ["--storage", postgresql_server.with_password("addresses")]
    began = time.monotonic()
    with open(root / "out.log", "wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "COLUMNS": "400"})
    lines: list[tuple[float, str]] = []
    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            lines += [(time.monotonic() - began, " ".join(p.cmdline())) for p in family]
        except psutil.Error:
            pass
        time.sleep(0.05)
    shown = (root / "out.log").read_text()
    assert process.returncode == 0, shown
    assert any("audio_cls.queue.process" in line for _, line in lines)
    secret = postgresql_server.password
    told = [at for at, line in lines if secret in line]
    assert max(told, default=0.0) < lines[-1][0] / 2
    assert not any(secret in line for _, line in lines if "audio_cls.queue.process" in line)
    runs = Tracker(Workspace(root)).runs()
    assert len(runs) == 3
    everything = json.dumps([r.tags for r in runs]) + shown
    everything += "".join(p.read_text(errors="replace") for p in (root / "logs").rglob("*.log"))
    assert secret not in everything


@pytest.mark.slow
def test_a_study_whose_tracking_server_goes_away_and_comes_back(root: Path, tmp_path: Path) -> None:
    """Trials go on at nearly full speed; what was kept arrives later, in order, once; the runs are whole."""
    import torch

    from audio_cls.core.loading import declaration
    from audio_cls.queue.storage import load_study
    from audio_cls.queue.worker import run_worker
    from audio_cls.runs.preparation import Runtime
    from audio_cls.study import Study
    from audio_cls.study.search import trial_objective

    epochs = 3
    (root / "s.py").write_text(STUDY.format(name="outage", epochs=epochs))
    with mlflow_server(tmp_path / "server") as server:
        workspace = Workspace(root, server.address)
        tracker = Tracker(workspace, retry_seconds=1.0)
        declared = declaration(root / "s.py", Study)
        parent = tracker.start("tones/multiclass", "study outage", kind="study")
        runtime = Runtime(workspace, tracker, torch.device("cpu"))
        objective = trial_objective(runtime, declared, parent.run_id, root / "s.py")
        run_worker(declared, root, 1, objective)
        assert tracker.pending() == 0
        server.kill()
        began = time.monotonic()
        run_worker(declared, root, 3, objective)
        assert time.monotonic() - began < 60
        assert tracker.pending() == 2
        server.start()
        time.sleep(2.5)  # longer than the server is left alone after a failure
        run_worker(declared, root, 4, objective)
        later = Tracker(workspace)
        later.flush()
        assert later.pending() == 0
        assert not list(workspace.outbox.rglob("*.refused"))
        trials = load_study("outage", open_storage(workspace.optuna_db)).trials
        assert [t.state.name for t in trials] == ["COMPLETE"] * 4
        runs = [r for r in later.runs() if r.tags["kind"] == "trial"]
        assert sorted(r.tags["config"] for r in runs) == ["0", "1", "2", "3"]
        assert {r.parent for r in runs} == {parent.run_id}
        for run in runs:
            assert run.state == "COMPLETE"
            trial = trials[int(run.tags["config"])]
            assert later.curve(run.run_id, "val/macro_f1") == sorted(trial.intermediate_values.items())
            assert later.download(run.run_id, "weights/best.safetensors", tmp_path / run.run_id).stat().st_size > 1000
