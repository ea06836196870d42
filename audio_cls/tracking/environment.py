"""Facts about where and how a run is made, for its tags."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from audio_cls.core.masking import mask_address

__all__ = ["environment_tags"]

_PACKAGES = (
    "audio_cls",
    "torch",
    "torchaudio",
    "numpy",
    "scipy",
    "scikit-learn",
    "optuna",
    "mlflow",
    "soundfile",
    "soxr",
)


def environment_tags(folder: Path | None = None) -> dict[str, str]:
    """Commit and dirtiness of the git checkout in `folder` (the current one), command line, versions, host and device.

    The home folder is written as `~`. What cannot be found out reads `unknown`; never raises.
    """
    commit, dirty = _git(folder or Path.cwd())
    tags = {
        "env.git_commit": commit,
        "env.git_dirty": dirty,
        "env.command": _command(),
        "env.python": platform.python_version(),
        "env.torch": _version("torch"),
        "env.packages": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        "env.host": socket.gethostname(),
        "env.platform": platform.platform(),
        "env.cpu_count": str(os.cpu_count() or "unknown"),
        "env.device": _device(),
    }
    if commit != "unknown":
        tags["mlflow.source.git.commit"] = commit  # where MLflow's own column looks for it
    return tags


def _command() -> str:
    words = [Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python", *sys.argv[1:]]
    home = str(Path.home())
    line = shlex.join(mask_address(word) for word in words)
    return line.replace(home, "~") if len(home) > 1 else line


def _git(folder: Path) -> tuple[str, str]:
    def run(*words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
        return done.stdout.strip()

    try:
        commit = run("rev-parse", "HEAD")
        return commit, str(bool(run("status", "--porcelain", "--untracked-files=no"))).lower()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return "unknown", "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _device() -> str:
    """Return the accelerator's name, else the processor's. Asks torch only where it has been imported already."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
        if torch is not None and torch.backends.mps.is_available():
            return "mps"
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return f"cpu: {names[0]}" if names else "cpu"
    except Exception:
        return f"cpu: {platform.processor()}" if platform.processor() else "cpu"
