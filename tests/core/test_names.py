"""One rule for names of corpora, studies and suites."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio_cls.core.errors import UserError
from audio_cls.core.names import LONGEST_NAME, check_name, is_name
from tests.commands import call
from tests.conftest import write_tones
from tests.study_fakes import declare

BAD = [
    "../evil",
    "/etc/evil",
    "a/b",
    "<script>",
    "",
    ".",
    "..",
    ".hidden",
    "-x",
    "a b",
    "a\n",
    "a\0",
    "a\x1b[2J",
    "x" * 101,
    "a'b",
    "a~b",
]


@pytest.mark.parametrize(
    "name", ["esc10-cnn", "demo", "esc10_cnn.v2", "mixup+gain", "7", "geräusche", "x" * LONGEST_NAME]
)
def test_names_in_use_stay(name: str) -> None:
    assert check_name(name, "a study") == name


@pytest.mark.parametrize("name", BAD)
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(UserError, match="cannot name a study"):
        declare(name=name)


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(UserError, match="Did you mean 'baby-cries'"):
        check_name("baby cries", "a corpus")


@pytest.mark.parametrize("name", ["../evil", "<script>", "/tmp/evil", "a b"])
def test_a_corpus_is_refused_before_its_source_is_read(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_tones(tmp_path / "source", n_per_class=2, folds=2)
    shown = call(capsys, tmp_path / "w", "data", "prepare", str(source), "--name", name, code=2)
    assert "cannot name a corpus" in shown
    assert not (tmp_path / "w").exists()
    assert not (tmp_path / "evil").exists()
