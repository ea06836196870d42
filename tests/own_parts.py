"""Parts of a user's own in tests: their files, and a process that has never seen them."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from audio_cls.config import Component
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

BLOCKS = "def width():\n    return 8\n"
TINY = f"""
from pathlib import Path
from torch import nn
from audio_cls.experiment import Experiment
from audio_cls.models import Model
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


def forget() -> None:
    """Make this process as new: no file of a user's has been loaded, no part of one is known."""
    for name, module in list(sys.modules.items()):
        place = getattr(module, "__file__", None) or ""
        if name.startswith(("audio_cls_user_", "own_")):
            del sys.modules[name]
            sys.path[:] = [p for p in sys.path if p != str(Path(place).parent)]
    families = [cls for cls in _all(Component) if cls.is_family()]
    for family in families:
        for kind, member in list(family._members.items()):
            if member.__module__.startswith(("audio_cls_user_", "own_")):
                del family._members[kind]


def _all(cls: type[Component]) -> Iterator[type[Component]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _all(sub)


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """Put back the handlers that a training command installs."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def command(capsys: pytest.CaptureFixture[str], workspace: Path, *words: str, code: int = 0) -> str:
    """A command in this process as if it were a new one."""
    forget()
    with signals_kept():
        try:
            return call(capsys, workspace, *words, code=code)
        except SystemExit as stop:
            assert stop.code == code, words
            shown = capsys.readouterr()
            return shown.out + shown.err
        finally:
            forget()
