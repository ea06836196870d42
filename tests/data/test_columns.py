"""The binary columns of a large corpus: the same as its index, and never believed where they are not of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_cls.core.errors import UserError
from audio_cls.data import columns
from audio_cls.data.columns import LazyColumns, read_columns
from audio_cls.data.corpus import Corpus
from audio_cls.data.index import read_index
from audio_cls.data.packing import prepare
from tests.data.layouts import embeddings_manifest


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of 48 clips, which counts as large here."""
    monkeypatch.setattr(columns, "FROM_CLIPS", 10)
    prepare(embeddings_manifest(tmp_path / "src"), tmp_path / "c", workers=1)
    assert (tmp_path / "c" / "columns.bin").is_file()
    return tmp_path / "c"


def everything(corpus: Corpus) -> dict[str, Any]:
    names = (
        "name",
        "classes",
        "digest",
        "ids",
        "clips",
        "groups",
        "splits",
        "label_lists",
        "sample_rate",
        "rate",
        "payload",
    )
    arrays = ("lengths", "offsets", "folds", "crcs", "gains", "source_rates", "targets", "seconds")
    return {n: getattr(corpus, n) for n in names} | {n: getattr(corpus, n).tolist() for n in arrays}


def test_a_corpus_is_the_same_by_its_columns_and_by_its_index(large: Path) -> None:
    fast = Corpus.open(large)
    assert isinstance(fast.index["columns"], LazyColumns)
    fast.verify()
    assert dict(fast.index["columns"]) == read_index(large)["columns"]
    seen = everything(fast)
    (large / "columns.bin").unlink()
    slow = Corpus.open(large)
    assert not isinstance(slow.index["columns"], LazyColumns)
    assert everything(slow) == seen
    assert fast.lengths.dtype == slow.lengths.dtype == np.int64
    assert fast.gains.dtype == slow.gains.dtype == np.float64


def test_small_corpora_have_none_and_old_ones_get_it_when_prepared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = embeddings_manifest(tmp_path / "src")
    prepare(manifest, tmp_path / "c", workers=1)
    assert not (tmp_path / "c" / "columns.bin").exists()
    monkeypatch.setattr(columns, "FROM_CLIPS", 10)
    assert prepare(manifest, tmp_path / "c", workers=1).decoded == 0
    assert isinstance(Corpus.open(tmp_path / "c").index["columns"], LazyColumns)


def test_columns_of_another_index_or_damaged_ones_are_not_read(large: Path, tmp_path: Path) -> None:
    file = large / "columns.bin"
    whole, before = file.read_bytes(), everything(Corpus.open(large))
    for at in (3, 60, len(whole) // 2):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = read_columns(large)
        if found is None:
            assert everything(Corpus.open(large)) == before
        else:  # in a column that is decoded later
            with pytest.raises(ValueError, match=r"of columns\.bin is damaged"):
                dict(found["columns"])
    file.write_bytes(whole[: len(whole) // 3])
    assert everything(Corpus.open(large)) == before if read_columns(large) is None else True
    file.write_bytes(whole)
    shutil.copytree(large, tmp_path / "other")
    prepare(embeddings_manifest(tmp_path / "src2", n=40), tmp_path / "other2", workers=1)
    shutil.copy(file, tmp_path / "other2" / "columns.bin")
    assert len(Corpus.open(tmp_path / "other2")) == 40
    index = tmp_path / "other" / "index.json"
    index.write_bytes(index.read_bytes().replace(b'"v7"', b'"w7"'))
    with pytest.raises(UserError, match="damaged"):
        Corpus.open(tmp_path / "other").verify()
