"""Parts of a user's own in tests: their files, and a process that has never seen them."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audio_cls.cli import main
from audio_cls.core.config import Component
from audio_cls.queue.process import main as worker_main
from tests.commands import call

SMALL = {
    "data.corpus": "tones",
    "data.sample_rate": 8000,
    "data.clip_seconds": 1.0,
    "features.n_fft": 256,
    "features.hop_length": 128,
    "features.n_mels": 32,
    "training.epochs": 1,
    "training.precision": "fp32",
}
WORDS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]

OWN = ("audio_cls_user_", "own_")  # how the names of a user's modules begin
BLOCKS = "def width():\n    return 8\n"
TINY = f"""
from pathlib import Path
from torch import nn
from audio_cls import Experiment
from audio_cls import Model
from own_blocks import width

with open(Path(__file__).with_name("executed"), "a") as file:
    file.write("once\\n")

class Tiny(Model, kind="own_tiny"):
    input_domains = ("spectrogram",)
    extra: int = 0

    def build(self, input_shape, n_classes):
        w = width() + self.extra
        return nn.Sequential(
            nn.Conv2d(input_shape[0], w, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w, n_classes)
        )

EXPERIMENT = Experiment().override({{**{SMALL!r}, "model": "own_tiny"}})
"""


def write_tiny(folder: Path, text: str = TINY) -> Path:
    """The file of a model `own_tiny`, beside a module that it imports."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own_blocks.py").write_text(BLOCKS, encoding="utf-8")
    (folder / "own_tiny.py").write_text(text, encoding="utf-8")
    return folder / "own_tiny.py"


@contextlib.contextmanager
def as_new() -> Iterator[None]:
    """Make this process as new within the context: no file of a user's has been loaded, no part of one is known."""
    families = [cls for cls in _all(Component) if cls.is_family()]
    members = {family: dict(family._members) for family in families}
    modules = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(OWN)}
    path = list(sys.path)
    sys.path[:] = [p for p in path if not any(Path(p).glob("own_*.py"))]
    for family in families:
        for kind in [k for k, member in family._members.items() if member.__module__.startswith(OWN)]:
            del family._members[kind]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.startswith(OWN)]:
            del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:] = path
        for family in families:
            family._members.clear()
            family._members.update(members[family])
        for number, handler in handlers.items():  # a training command installs its own
            signal.signal(number, handler)


def train_first(root: Path, corpus: Path) -> Path:
    """Train the run `first` on a prepared corpus of tones, in a new workspace. Returns the workspace."""
    (root / "corpora").mkdir()
    (root / "corpora" / "tones").symlink_to(corpus)
    with as_new(), contextlib.redirect_stdout(io.StringIO()):
        assert main(["--workspace", str(root), "train", *WORDS, "--name", "first"]) == 0
    return root


def _all(cls: type[Component]) -> Iterator[type[Component]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _all(sub)


class WorkerHere:
    """In place of `subprocess.Popen`: a worker of ours runs to its end in this process, as if it were a new one."""

    real = subprocess.Popen

    def __new__(cls, words: Any, **settings: Any) -> Any:
        if "-m" not in words or not str(words[words.index("-m") + 1]).startswith("audio_cls."):
            return cls.real(words, **settings)
        return super().__new__(cls)

    def __init__(self, words: list[str], env: dict[str, str], **_: Any) -> None:
        module, words = words[words.index("-m") + 1], words[words.index("-m") + 2 :]
        kept = dict(os.environ)
        os.environ.update(env)
        try:
            with as_new(), pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "getppid", os.getpid)  # the worker looks whether its supervisor is still there
                self.returncode = worker_main() if module == "audio_cls.queue.process" else main(words)
        finally:
            os.environ.clear()
            os.environ.update(kept)
        self.pid = os.getpid()

    def poll(self) -> int:
        return self.returncode

    wait = poll


def command(capsys: pytest.CaptureFixture[str], workspace: Path, *words: str, code: int = 0) -> str:
    """A command in this process as if it were a new one, and its workers as well."""
    with as_new(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", WorkerHere)
        return call(capsys, workspace, *words, code=code)
