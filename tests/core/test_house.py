"""The laws of the house are checked: a break of each is reported, and the house as it stands keeps them."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "audio_cls"

BREAKS = {
    "audio_cls/core/up.py": "def f() -> None:\n    import audio_cls.metrics.ranking\n",  # deferred imports count
    "audio_cls/data/beside.py": "from audio_cls.metrics import ranking\n",
    "audio_cls/newroom/__init__.py": "",
    "audio_cls/core/one.py": "from audio_cls.core import two\n",
    "audio_cls/core/two.py": "def f() -> None:\n    from audio_cls.core import one\n",
    "audio_cls/runs/searching.py": "import optuna\n",
    "audio_cls/training/record.py": "import mlflow.tracking\n",
    "audio_cls/study/screen.py": "from rich.table import Table\nimport click\n",
    "audio_cls/training/drawing.py": "import plotly.graph_objects\n",
    "audio_cls/training/files.py": "import onnxruntime\n",
    "audio_cls/runs/hearing.py": "def f() -> None:\n    import sounddevice\n",
}
REPORTED = [
    r"audio_cls\.core\.up -> audio_cls\.metrics\.ranking",
    r"audio_cls\.data\.beside -> audio_cls\.metrics",
    r"newroom",
    r"\.(one|two) -> \.(one|two)",
    r"audio_cls\.runs\.searching -> optuna",
    r"audio_cls\.training\.record -> mlflow",
    r"audio_cls\.study\.screen -> rich",
    r"audio_cls\.study\.screen -> click",
    r"audio_cls\.training\.drawing -> plotly",
    r"audio_cls\.training\.files -> onnxruntime",
    r"audio_cls\.runs\.hearing -> sounddevice",
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", program, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_break_of_the_laws_is_reported(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "audio_cls", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    kept = lint(tmp_path)
    assert kept.returncode == 0, kept.stdout
    for file, text in BREAKS.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    broken = lint(tmp_path)
    assert broken.returncode == 1
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert f"0 kept, {len(contracts)} broken" in broken.stdout
    for pattern in REPORTED:
        assert re.search(pattern, broken.stdout), f"{pattern} is not in\n{broken.stdout}"


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def private_imports(file: Path) -> list[str]:
    own = ".".join(("audio_cls", *file.relative_to(PACKAGE).with_suffix("").parts))
    return [
        f"{own}: {node.module}.{alias.name}"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("audio_cls")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__") and room(node.module or "") != room(own)
    ]


def test_no_room_imports_the_private_names_of_another() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    assert [found for file in files for found in private_imports(file)] == []


ROOMS = sorted(folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file())


def test_every_room_states_its_law_and_its_face_is_there() -> None:
    assert len(ROOMS) == 15
    for name in ROOMS:
        module = importlib.import_module(f"audio_cls.{name}")
        assert "Law: " in (module.__doc__ or ""), name
        face = [member for member in getattr(module, "__all__", []) if name != "cli"]
        assert [member for member in face if getattr(module, member) is None] == []
        assert face or name in ("cli", "core"), name


def test_a_face_costs_nothing_and_refuses_other_names() -> None:
    rooms = ", ".join(f"audio_cls.{name}" for name in ROOMS if name != "tracking")
    program = (
        f"import sys, {rooms}; print(sorted({{'torch', 'optuna', 'mlflow', 'plotly', 'pandas'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match=r"'audio_cls.queue' has no attribute 'nothing'"):
        importlib.import_module("audio_cls.queue").nothing  # noqa: B018
