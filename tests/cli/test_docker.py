"""docker/: the compose file holds what it promises, and the images' own scripts work, run here without containers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
import yaml

from tests.servers import PostgreSQL, free_port

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SECRETS = {"optuna": "o'p\\t \"u$na", "mlflow": "ml-f1ow-wörd"}
STUDY = """
from audio_cls.experiment import Experiment
from audio_cls.study import TPE, Study

BASE = Experiment.parse({
    "data": {"corpus": "tones", "sample_rate": 8000, "clip_seconds": 1.0},
    "features": {"kind": "log_mel", "n_fft": 256, "hop_length": 128, "n_mels": 32},
    "training": {"epochs": 2, "batch_size": 16},
})
STUDY = Study("dock", base=BASE, space=lambda t: {"optimizer.lr": t.suggest_float("lr", 1e-4, 1e-2, log=True)}, sampler=TPE(seed=0, startup_trials=4))
"""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8")))


def test_services_ports_and_health(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"db", "mlflow", "worker", "worker-gpu"}
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert "no-new-privileges:true" in service["security_opt"]
        assert not service.get("privileged")
        for port in service.get("ports", []):
            assert port.startswith("${BIND:-127.0.0.1}:"), f"{name} listens on more than loopback: {port}"
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services
            assert how["condition"] == "service_healthy"
    assert {name for name, s in services.items() if "ports" in s} == {"db", "mlflow"}
    assert services["worker"]["profiles"] == ["cpu"]
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    assert services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    grace = int(services["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > 60 + 15  # --grace, and what the supervisor adds


def test_no_password_is_written_down(compose: dict[str, Any]) -> None:
    for secret in compose["secrets"].values():
        assert set(secret) == {"file"}
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            assert "PASSWORD" not in key or (key.endswith("_FILE") and value.startswith("/run/secrets/")), (name, key)
        assert set(service["secrets"]) <= set(compose["secrets"])
        asked = {Path(v).name for k, v in service["environment"].items() if k.endswith("_FILE")}
        assert asked == set(service["secrets"]), name
    assert not list(DOCKER.glob("secrets/*")) or "secrets/" in (DOCKER / ".gitignore").read_text()


def test_data_is_in_volumes_and_files_exist(compose: dict[str, Any]) -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    used = set()
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert os.access(DOCKER / source, os.X_OK)
            else:
                used.add(source)
        if build := service.get("build"):
            assert f" AS {build['target']}\n" in dockerfile
            assert (DOCKER / build["context"] / build["dockerfile"]).exists()
        else:
            assert re.search(r":\d+\.\d+", service["image"]), "an image without a version"
    assert used == set(compose["volumes"])


def test_images_are_pinned_and_run_without_privileges() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    stages = re.split(r"^FROM .* AS ", text, flags=re.M)[2:]
    assert len(stages) == 3
    for stage in stages:
        assert "\nUSER audio\n" in stage
        assert stage.index("\nUSER audio") < stage.index("ENTRYPOINT")
        assert "requirements.txt" in stage
    for copied in re.findall(r"^COPY (.+) \S+$", text, flags=re.M):
        for name in copied.split():
            assert (ROOT / name).exists(), name
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for package in ("torch", "torchaudio", "mlflow", "optuna", "psycopg"):
        assert re.search(rf"^{package}==", pins, flags=re.M)


@pytest.mark.parametrize("script", sorted(DOCKER.glob("*.sh")), ids=lambda p: p.name)
def test_scripts_parse_and_insist_on_a_password(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    bare = {k: v for k, v in os.environ.items() if "PASSWORD" not in k}
    done = subprocess.run(["bash", str(script), "--version"], env=bare, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "is needed" in done.stderr


# -- the scripts at work ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(words: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "wb") as out:
        process = subprocess.Popen(
            words, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group, which we made
        process.wait()


def _command_lines(process: subprocess.Popen[bytes]) -> list[str]:
    lines = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid)
        for member in [family, *family.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                lines.append(" ".join(member.cmdline()))
    return lines


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_images_commands_run_a_study(postgresql_server: PostgreSQL, tones_corpus: Path, tmp_path: Path) -> None:
    import psycopg

    server = postgresql_server
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for name in SECRETS:
            connection.execute(f'drop database if exists "{name}" with (force)'.encode())
            connection.execute(f'drop role if exists "{name}"'.encode())
    for name, word in SECRETS.items():
        (tmp_path / name).write_text(word, encoding="utf-8")
    shared = {"DB_HOST": "127.0.0.1", "DB_PORT": str(server.port), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    files = {f"{name.upper()}_DB_PASSWORD_FILE": str(tmp_path / name) for name in SECRETS}
    env = {**os.environ, **shared, **files}
    admin = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGPASSWORD": server.password,
        "POSTGRES_USER": server.user,
    }
    subprocess.run(["bash", str(DOCKER / "init-databases.sh")], env={**env, **admin}, check=True, timeout=60)
    for name, word in SECRETS.items():
        psycopg.connect(host="127.0.0.1", port=server.port, user=name, password=word, dbname=name).close()
        other = next(n for n in SECRETS if n != name)
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(host="127.0.0.1", port=server.port, user=name, password=word, dbname=other)

    port = free_port()
    served = {
        "MLFLOW_ARTIFACTS": str(tmp_path / "artifacts"),
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": str(port),
        "MLFLOW_WORKERS": "1",
    }
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "corpora").symlink_to(tones_corpus.parent)
    (workspace / "dock.py").write_text(STUDY)
    seen: list[str] = []
    with running(["bash", str(DOCKER / "serve.sh")], {**env, **served}, tmp_path / "serve.log") as mlflow:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urlopen(f"{address}/health", timeout=5) as answer:
                if answer.status == 200:
                    break
            assert mlflow.poll() is None, (tmp_path / "serve.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "serve.log").read_text()
            time.sleep(0.3)
        # The address holds a user and a password as one behind a proxy would: they must not be recorded either.
        with_user = f"http://someone:hush-hush@127.0.0.1:{port}"
        at = {"AUDIO_CLS_TRACKING": with_user, "AUDIO_CLS_WORKSPACE": str(workspace)}
        words = [
            "bash",
            str(DOCKER / "work.sh"),
            "study",
            "run",
            str(workspace / "dock.py"),
            "--trials",
            "2",
            "--workers",
            "1",
            "--device",
            "cpu",
        ]
        with running(words, {**env, **at}, tmp_path / "work.log") as worker:
            while worker.poll() is None:
                seen += _command_lines(worker) + _command_lines(mlflow)
                time.sleep(0.2)
        shown = (tmp_path / "work.log").read_text()
        assert worker.returncode == 0, shown
        assert any("audio_cls.queue.process" in line for line in seen)

        from mlflow import MlflowClient

        client = MlflowClient(address)
        runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.kind = 'trial'")
        assert [r.data.tags["state"] for r in runs] == ["COMPLETE"] * 2
        assert all(r.info.artifact_uri.startswith("mlflow-artifacts:/") for r in runs)
        kept = Path(client.download_artifacts(runs[0].info.run_id, "experiment.json", str(tmp_path)))
        assert json.loads(kept.read_text())["data"]["corpus"] == "tones"
        recorded = json.dumps([{**e.tags} for e in client.search_experiments()]) + json.dumps(
            [r.data.tags for r in runs]
        )
    assert list((tmp_path / "artifacts").rglob("best.safetensors"))
    assert not (workspace / "mlflow.db").exists()
    logs = "".join(p.read_text(errors="replace") for p in [*workspace.rglob("*.log"), *tmp_path.glob("*.log")])
    for secret in (*SECRETS.values(), server.password, "hush-hush"):
        for where, text in {"processes": "\n".join(seen), "logs": logs, "MLflow": recorded}.items():
            assert secret not in text, where
