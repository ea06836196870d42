"""The shell and Python blocks of README.md and docs/ run as they are printed, on tiny data, in one workspace for each page.

Commands get a few words more so that they are small (`SMALLER`). What is not run stands in `NOT_RUN` with its reason; its
`audio-cls` commands are still parsed. docs/own-parts.md has a test of its own: tests/runs/test_own_parts.py.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile as sf

from audio_cls.cli import app
from tests.commands import call, run

ROOT = Path(__file__).resolve().parents[2]
EXECUTED = ("README.md", "docs/guides/own-data.md", "docs/guides/studies.md", "docs/guides/ablations.md")
NOT_RUN = {
    "make demo": "the Makefile's target, run from a fresh clone",
    "make test": "the Makefile's target: these tests",
    "make setup": "the Makefile's target",
    "make lint": "the Makefile's target",
    "make test-fast": "the Makefile's target",
    "make test-long": "the Makefile's target",
    "source .venv/bin/activate": "the tests run in that environment already",
    "audio-cls ui": "serves until it is stopped: tests/ui",
    "audio-cls study revive": "needs pruned trials: tests/study/test_revive.py",
    "docs/guides/gpu-box.md": "needs a GPU, PostgreSQL and a second box: tests/queue/test_postgresql.py",
    "docker/README.md": "needs Docker: tests/cli/test_docker.py runs its scripts",
    "docs/own-parts.md": "tests/runs/test_own_parts.py",
    "docs/augmentations.md": "needs corpora of noise: tests/components/test_augment.py, tests/runs/test_backgrounds.py",
    "docs/models.md": "needs corpora of each domain: tests/components/test_models.py",
    "docs/metrics.md": "needs trained runs: tests/runs/test_ensemble.py",
    "docs/use.md": "needs trained models and servers: tests/inference",
    "docs/data.md": "needs downloads: tests/data/test_layouts.py, tests/data/test_getting.py",
}
EPOCH = ["--set", "training.epochs=1"]
SMALLER = {
    "audio-cls train": EPOCH,
    "audio-cls train --set data.corpus=mine --set data.split=k_fold": ["--folds", "1,2", "--seeds", "1", *EPOCH],
    "audio-cls train best.json": [],
    "audio-cls study run": ["--trials", "2", "--workers", "1", *EPOCH],
    "audio-cls study confirm": ["--top", "1", "--seeds", "1", "--workers", "1"],
    "audio-cls ablate run": ["--seeds", "1", "--workers", "1", *EPOCH],
}
AS_PROCESS = ("train", "study run", "study confirm", "ablate run")  # those that start processes
REPLACED = {"PATH/TO/FOLDER_OR_CSV": "sounds/clips.csv", "sounds": "sounds/clips.csv"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language and text."""

    page: str
    language: str
    text: str


def pages() -> list[str]:
    """Return the pages, those that are executed first."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "docker" / "README.md"]
    names = {path.relative_to(ROOT).as_posix() for path in found}
    return [*EXECUTED, *sorted(names - set(EXECUTED))]


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(page, *match) for match in re.findall(r"(?ms)^```(\w*)\n(.*?)^```", text)]


def commands(block: Block) -> list[str]:
    """Return the commands of a shell block, without comments; one that goes on after a backslash is put into one line."""
    whole = re.sub(r" *\\\n *", " ", block.text)
    lines = [re.sub(r"\s+#.*| +$", "", line) for line in whole.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def reason(page: str, command: str = "") -> str | None:
    """Return why a page or a command is not run, if it is not."""
    named = [key for key in NOT_RUN if key == page or command == key or command.startswith(key + " ")]
    return NOT_RUN[named[0]] if named else None


@pytest.mark.parametrize("page", pages())
def test_every_block_is_run_or_has_a_reason_and_its_commands_parse(page: str) -> None:
    known = {"bash": "run", "python": "run", "text": "output"}
    for block in blocks(page):
        assert block.language in known, f"{page}: a block without a language:\n{block.text}"
        if block.language == "python":
            assert page in EXECUTED or reason(page), f"{page}: add the page to EXECUTED, or a reason to NOT_RUN"
        if block.language == "bash":
            for command in commands(block):
                assert page in EXECUTED or reason(page, command), f"{page}: {command}"
                if command.startswith("audio-cls "):
                    parse(shlex.split(command.split(" > ")[0])[1:])


def parse(words: list[str]) -> None:
    """Raise `click.UsageError` for a command or an option that does not exist."""
    command: click.Command = app.cli
    context = click.Context(command, info_name="audio-cls")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.make_parser(context).parse_args(words)


def test_a_wrong_option_or_command_is_found() -> None:
    for wrong in (["train", "--epochs", "3"], ["study", "rum", "x"]):
        with pytest.raises(click.UsageError):
            parse(wrong)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data that the pages speak of: a CSV with groups and a split, and new recordings."""
    rng = np.random.default_rng(0)
    rows = ["path,label,group,split"]
    (tmp_path / "sounds").mkdir()
    (tmp_path / "new_recordings").mkdir()
    for label, level in (("quiet", 0.05), ("loud", 0.3)):
        for i in range(12):
            sf.write(tmp_path / "sounds" / f"{label}{i}.wav", level * rng.standard_normal(3000), 8000)
            split = ("train", "train", "train", "train", "validation", "test")[i % 6]
            rows.append(f"{label}{i}.wav,{label},speaker{i % 6},{split}")
    (tmp_path / "sounds" / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    for name in ("recording.wav", "new_recordings/one.wav"):
        sf.write(tmp_path / name, 0.1 * rng.standard_normal(3000), 8000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", EXECUTED)
def test_the_blocks_run_as_printed(page: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = workspace
    if not any("data prepare" in block.text for block in blocks(page)):
        call(capsys, workspace, "data", "prepare", "sounds/clips.csv", "--name", "mine")
    for block in blocks(page):
        if block.language == "python":
            run_python(block, workspace)
        elif block.language == "bash":
            for command in commands(block):
                if "study import" in command:  # "on the other machine"
                    place = workspace / "other"
                    place.mkdir()
                if reason(page, command) is None:
                    run_command(command, place, capsys)


def run_python(block: Block, workspace: Path) -> None:
    """Write a block that begins with a file's name to that file; run any other as a script."""
    name = re.match(r"# (\S+\.py)\n", block.text)
    file = workspace / (name[1] if name else "script.py")
    file.parent.mkdir(exist_ok=True)
    file.write_text(block.text, encoding="utf-8")
    if name is None:
        env = {**os.environ, "AUDIO_CLS_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-P", str(file)], cwd=workspace, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.page}:\n{block.text}\n{done.stderr}"


def run_command(command: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, _, file = command.partition(" > ")
    smaller = [words for start, words in SMALLER.items() if command.startswith(start)]
    words = [REPLACED.get(word, word) for word in shlex.split(command)[1:]] + (smaller[-1] if smaller else [])
    said = ""
    if command.removeprefix("audio-cls ").startswith(AS_PROCESS):
        run(workspace, *words)
    else:
        said = call(capsys, workspace, *words)
    if file:
        (Path.cwd() / file).write_text(said, encoding="utf-8")
