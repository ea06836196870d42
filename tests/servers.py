"""Private servers for tests and benchmarks: PostgreSQL and MLflow, on loopback or a socket, ended by their process id."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Missing(Exception):
    """Why a server cannot run here."""


def postgresql_programs() -> Path:
    """The folder of `initdb` and `postgres`.

    Raises:
        Missing: when there is none.
    """
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not versions:
        raise Missing(
            "no PostgreSQL here: its initdb is neither on the path nor under /usr/lib/postgresql (apt-get install postgresql)"
        )
    return versions[-1].parent


def _unprivileged() -> tuple[str, dict[str, Any]]:
    """The user that a PostgreSQL server runs as (it refuses to be root), and how to start a process as that user."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name, {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            return name, {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}
    raise Missing("PostgreSQL does not run as root, and there is no user postgres or nobody")


class PostgreSQL:
    """A running server. `url(NAME)` is the address of a database on its socket, `with_password(NAME)` one on 127.0.0.1 that
    is asked for a password."""

    password = "s3cret-word"

    def __init__(self, user: str, folder: Path, port: int, programs: Path, who: dict[str, Any]) -> None:
        self.user, self.folder, self.port = user, folder, port
        self._programs, self._who = programs, who
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import psycopg

        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "max_connections": 80,
        }
        words: list[Any] = [self._programs / "postgres", "-D", self.folder / "data"]
        for key, value in settings.items():
            words += ["-c", f"{key}={value}"]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, **self._who
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise Missing(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-1000:]}") from None
                time.sleep(0.1)

    def crash(self) -> None:
        """End it at once: no connection is told, what was not committed is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=20)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    def url(self, name: str) -> str:
        return f"postgresql://{self.user}@/{name}?host={self.folder}&port={self.port}"

    def with_password(self, name: str) -> str:
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{name}"

    def create(self, name: str) -> str:
        """A fresh database; its address."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'drop database if exists "{name}" with (force)'.encode())
            connection.execute(f'create database "{name}"'.encode())
        return self.url(name)


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server of our own, its data in a temporary folder.

    Raises:
        Missing: where it cannot run.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise Missing("no PostgreSQL driver: pip install 'audio_cls[postgresql]'")
    programs = postgresql_programs()
    user, who = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path may have 107 characters
    server = PostgreSQL(user, folder, free_port(), programs, who)
    try:
        secret = folder / "password"
        secret.write_text(PostgreSQL.password + "\n")
        if who:
            os.chown(folder, who["user"], who["group"])
            os.chown(secret, who["user"], who["group"])
        words: list[Any] = [programs / "initdb", "-D", folder / "data", "-U", user, "--pwfile", secret, "--no-sync"]
        words += ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **who)
        if done.returncode:
            raise Missing(f"initdb failed: {done.stdout[-1000:]}")
        server.start()
        yield server
    finally:
        server.crash()  # the data is thrown away
        shutil.rmtree(folder, ignore_errors=True)


class MLflowServer:
    """An MLflow server that can be killed and started again on the same data and port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        words += [
            "--backend-store-uri",
            f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        quiet = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs of its own, which we have none of
        }
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                words,
                env={**os.environ, **quiet},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise Missing(f"the MLflow server did not start: {(self.folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)

    def answers(self) -> bool:
        from urllib.request import urlopen

        try:
            with urlopen(f"{self.address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End the server with its own workers, as power loss would. They are in a group of their own, which we started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[MLflowServer]:
    server = MLflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "4m") -> Iterator[Path]:
    """A file system of its own in `folder`, which is soon full.

    Raises:
        Missing: where one cannot be mounted (it takes root, and a container that allows it).
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise Missing(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """The address of a server on loopback that offers the files of a folder."""
    handler = partial(_QuietHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
