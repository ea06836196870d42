"""`data mix`: how many labels, how rare the last, that nothing leaks between folds, and that the same call goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audio_cls.core.errors import UserError
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.mixing import Mixtures, mix, pools_of
from audio_cls.data.packing import prepare
from tests.conftest import write_tones
from tests.data.layouts import embeddings_manifest


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("mix")
    table = write_tones(root / "tones", n_per_class=20, seconds=0.2)
    return prepare(sources.read(table), root / "corpus", workers=1, on_bad="refuse").corpus


def quiet(done: int, total: int, what: str) -> None: ...


def test_pools_divide_folds_by_whole_groups(tones: Corpus) -> None:
    pools = pools_of(tones, Mixtures(pools=2))
    assert sorted(int(i) for pool in pools for i in pool.clips) == list(range(len(tones)))
    assert [pool.fold for pool in pools] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert all(set(tones.folds[pool.clips]) == {pool.fold} for pool in pools)


def test_mixtures_are_long_tailed_and_keep_to_their_fold(tones: Corpus, tmp_path: Path) -> None:
    config = Mixtures(clips=200, labels=1.8, tail=1.0, seconds=0.3)
    made = sources.read(mix(tones, tmp_path / "mixed", config, quiet))
    assert (made.task, len(made)) == ("multilabel", 200)
    assert set(made.classes) == set(tones.classes)
    counts = np.asarray([sum(name in clip.labels for clip in made.clips) for name in tones.classes])
    assert counts[0] > counts[1] > counts[2]
    assert 1.4 < counts.sum() / 200 < 1.9  # a little below 1.8: no class is drawn twice, and there are three
    assert all(f"fold{clip.fold}" == str(clip.group).partition("-")[0] for clip in made.clips)
    x, rate = sf.read(made.clips[0].path)
    assert (len(x), rate) == (2400, 8000)
    assert 0.1 < np.abs(x).max() < 1


def test_interrupted_it_goes_on_to_the_same_files(tones: Corpus, tmp_path: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def stop(done: int, total: int, what: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    config = Mixtures(clips=12, seconds=0.2)
    with pytest.raises(KeyboardInterrupt):
        mix(tones, tmp_path / "a", config, stop)
    assert "meta.csv" not in files(tmp_path / "a")
    mix(tones, tmp_path / "a", config, quiet)
    mix(tones, tmp_path / "b", config, quiet)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    with pytest.raises(UserError, match="holds mixtures of another corpus or of other settings"):
        mix(tones, tmp_path / "a", Mixtures(clips=13, seconds=0.2), quiet)
    with pytest.raises(UserError, match="is not empty"):
        mix(tones, tmp_path, config, quiet)


def test_only_waveforms_are_mixed(tmp_path: Path) -> None:
    corpus = prepare(embeddings_manifest(tmp_path / "set"), tmp_path / "corpus", workers=1).corpus
    with pytest.raises(UserError, match="mixtures are made of waveforms"):
        mix(corpus, tmp_path / "mixed", Mixtures(), quiet)
