"""The files around the package agree with it: version, licence, links, linters."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import audio_cls

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docker").glob("*.md")])


def test_version_and_licence_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == PROJECT["version"] == audio_cls.__version__
    assert f"## {PROJECT['version']} - {citation['date-released']}" in (ROOT / "CHANGELOG.md").read_text(
        encoding="utf-8"
    )
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_hooks_call_the_tools_of_make_lint() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["entry"].split()[0] for repo in config["repos"] for hook in repo["hooks"]}
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint:")[1].split("\n\n")[0]
    assert hooks == {f".venv/bin/{tool}" for tool in re.findall(r"\$\(BIN\)/(\S+)", lint)}


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"(?m)^#+ (.*)$", linked.read_text(encoding="utf-8"))
            assert heading in {anchor(h) for h in headings}, target
    for named in re.findall(r"`((?:audio_cls|tests|benchmarks|studies|experiments|docker)/[\w/.\-]*)`", text):
        known = "mine" in named or (ROOT / named).exists()
        assert known, f"{named} is named, but is not there"
