"""What lies in the current folder is not executed, and does not become part of a study."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from audio_cls.core.interpreter import python_command, safe_environment
from audio_cls.core.loading import imported_sources, load_file
from audio_cls.core.workspace import Workspace
from audio_cls.ui.serving import ui_command
from tests.conftest import write_tones
from tests.study_tones import STUDY

HOSTILE = (
    "numpy", "mlflow", "optuna", "torch", "click", "json", "plotly", "uvicorn", "sqlalchemy", "rich", "scipy", "soundfile", "pydantic",
    "signal", "random", "_classes", "sitecustomize", "usercustomize", "yaml", "fastapi", "psutil",
)  # fmt: skip
ABLATION = """
from audio_cls.ablation.declaration import Ablation
from audio_cls.experiment import Experiment

BASE = Experiment.parse({
    "data": {"corpus": "tones", "sample_rate": 8000, "clip_seconds": 0.5, "split": {"kind": "folds"}},
    "features": {"kind": "log_mel", "n_fft": 256, "hop_length": 256, "n_mels": 16},
    "training": {"epochs": 1, "batch_size": 12, "precision": "fp32"},
})
ABLATION = Ablation("two", base=BASE, reference="a", arms={"a": {}, "b": {"optimizer.lr": 1e-2}}, seeds=(0,), folds=(1,))
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose every module leaves a mark when it is executed."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'marks')!r}, 'a').write({name + chr(10)!r})\nraise SystemExit('hostile {name}')\n"
        )
    return folder


def marks(hostile: Path) -> str:
    file = hostile.parent / "marks"
    return file.read_text() if file.exists() else ""


def _command(hostile: Path, *words: str) -> str:
    """Run `audio-cls` in the hostile folder, as it is installed."""
    script = Path(sys.executable).with_name("audio-cls")
    start = [str(script)] if script.exists() else [sys.executable, "-P", "-m", "audio_cls.cli"]
    done = subprocess.run([*start, *words], cwd=hostile, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_command_imports_nothing_from_the_current_folder(hostile: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "audio_cls.cli", "keys", "optimizer"], cwd=hostile, capture_output=True, text=True
    )
    # `python -m` itself searches the folder before a line of ours runs: what the interpreter imports then is not ours to guard.
    assert "hostile" not in done.stdout
    assert not set(marks(hostile).split()) & {"click", "pydantic", "rich", "numpy", "torch", "mlflow", "optuna"}
    (hostile.parent / "marks").unlink(missing_ok=True)
    assert "optimizer.lr" in _command(hostile, "keys", "optimizer")
    assert marks(hostile) == ""


def test_processes_are_started_without_the_current_folder(hostile: Path) -> None:
    code = "import sys, os; sys.exit(os.getcwd() in map(os.path.abspath, sys.path))"
    shutil.copy(hostile / "numpy.py", hostile / "here.py")
    command = python_command("here")
    assert command[:2] == [sys.executable, "-P"]
    done = subprocess.run(command, cwd=hostile, env=safe_environment(), capture_output=True, text=True)
    assert "No module named here" in done.stderr
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=hostile, env=safe_environment()).returncode == 0
    )  # a child's child
    assert marks(hostile) == ""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_command_executes_what_lies_in_the_current_folder(hostile: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"
    root.mkdir()
    source = write_tones(tmp_path / "source")
    (root / "tones.py").write_text(STUDY.replace("SCHEDULE", "cosine").replace("EPOCHS", "1"))
    (root / "two.py").write_text(ABLATION)
    there = ("--workspace", str(root))
    prepare = ("data", "prepare", str(source), "--name", "tones", "--sample-rate", "8000", "--workers", "2")
    _command(hostile, *there, *prepare)
    _command(hostile, *there, "study", "run", str(root / "tones.py"), "--trials", "2", "--workers", "2")
    _command(hostile, *there, "ablate", "run", str(root / "two.py"), "--workers", "2")
    _command(hostile, *there, "study", "status")
    assert marks(hostile) == ""


@pytest.mark.slow
def test_the_ui_executes_nothing_of_its_workspace(hostile: Path) -> None:
    """The server runs in the workspace's folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["ui", "--no-browser", "--port", str(port)]
    start = [sys.executable, "-P", "-m", "audio_cls.cli", "--workspace", str(hostile)]
    process = subprocess.Popen(
        [*start, *words], cwd=hostile, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except (URLError, OSError):
                assert process.poll() is None
                time.sleep(0.2)
        else:
            pytest.fail("the server does not answer")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert marks(hostile) == ""


def test_the_servers_own_search_path_begins_nowhere(tmp_path: Path) -> None:
    command = ui_command(Workspace(tmp_path))
    assert command[1] == "-P"
    assert command[command.index("--uvicorn-opts") + 1] == f"--app-dir {os.devnull}"


# -- the sources of a study ---------------------------------------------------------------------------------------


def test_sources_are_the_files_that_the_study_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder of the file, with modules that say a relative place, a virtual environment, and files that nobody imports."""
    folder = tmp_path / "studies"
    for name, text in {
        "mine_s1.py": "from helpers_s1 import VALUE\nimport nets_s1.small\n",
        "helpers_s1.py": "VALUE = 1\n",
        "nets_s1/__init__.py": "",
        "nets_s1/small.py": "",
        "unused_s1.py": "",
        "env/lib/python3.11/site-packages/big_s1.py": "",
        "env/lib/python3.11/fractions_s1.py": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "below").mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    load_file(folder / "mine_s1.py")
    for name, place in {
        "torch._classes": "_classes.py",
        "torch.ops_s1": "",
        "big_s1": str(folder / "env/lib/python3.11/site-packages/big_s1.py"),
        "fractions_s1": str(folder / "env/lib/python3.11/fractions_s1.py"),
        "vanished_s1": str(folder / "vanished_s1.py"),
    }.items():
        module = types.ModuleType(name)
        module.__file__ = place
        monkeypatch.setitem(sys.modules, name, module)
    for cwd in (folder, folder / "below", tmp_path, Path("/")):
        monkeypatch.chdir(cwd)
        assert set(imported_sources(folder / "mine_s1.py")) == {
            "mine_s1.py",
            "helpers_s1.py",
            "nets_s1/__init__.py",
            "nets_s1/small.py",
        }


def test_a_source_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "gone_s2.py").write_text("VALUE = 2\n")
    (tmp_path / "mine_s2.py").write_text("import gone_s2\n")
    before = list(sys.path)
    load_file(tmp_path / "mine_s2.py")
    sys.path[:] = before
    (tmp_path / "gone_s2.py").unlink()
    (tmp_path / "gone_s2.py").mkdir()
    assert set(imported_sources(tmp_path / "mine_s2.py")) == {"mine_s2.py"}
