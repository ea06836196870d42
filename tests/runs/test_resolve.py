"""What is left to the data: chosen for a corpus, the same for every user of an experiment, recorded as what it became."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from audio_cls.ablation.contract import check_plan
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.settling import settle
from audio_cls.components.features import LogMel
from audio_cls.core.config import ConfigError
from audio_cls.core.errors import UserError
from audio_cls.core.payload import waveform_payload
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.packing import prepare
from audio_cls.experiment import Experiment
from audio_cls.runs.resolve import FORMER, choose_window, hand_set_faults, resolve
from audio_cls.study import Study
from audio_cls.study.search import settle_study
from tests.commands import call
from tests.own_parts import command

LABELS = ("low", "high")


def make_corpus(
    root: Path, *, layout: str, seconds: tuple[float, float] = (0.3, 0.6), rate: int = 8000, packed_at: int | None = None, n: int = 10
) -> Path:  # fmt: skip
    """The folder of a packed corpus of two tones: `layout` is folder, groups, splits, folds, torn, pair."""
    rng, rows = np.random.default_rng(0), []
    for label in LABELS:
        for i in range(n):
            t = np.arange(int(rate * rng.uniform(*seconds))) / rate
            tone = 0.3 * np.sin(2 * np.pi * (300 if label == "low" else 1500) * t) + 0.02 * rng.standard_normal(len(t))
            path = root / "source" / label / f"{label}{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, tone, rate)
            group = {"groups": f"speaker{i % 5}", "torn": f"speaker{i // 2}", "pair": f"speaker{i % 2}"}.get(layout, "")
            fold = str(i % 5 + 1) if layout in ("folds", "torn") else ""
            side = ("train", "train", "train", "validation", "test")[i % 5] if layout == "splits" else ""
            rows.append(f"{label}/{label}{i}.wav,{label},{group},{fold},{side}")
    manifest = root / "source"
    if layout != "folder":
        manifest = root / "source" / "clips.csv"
        manifest.write_text("path,label,group,fold,split\n" + "\n".join(rows) + "\n", encoding="utf-8")
    read = dataclasses.replace(sources.read(manifest), name=layout)
    prepare(read, root / "corpora" / layout, sample_rate=packed_at or rate, workers=1)
    return root / "corpora" / layout


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Corpora by layout, prepared once."""
    root = tmp_path_factory.mktemp("resolve")
    return {
        kind: make_corpus(root / kind, layout=kind) for kind in ("folder", "groups", "splits", "folds", "torn", "pair")
    }


def resolved(corpus: Path | Corpus, **changes: Any) -> Experiment:
    opened = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    experiment = Experiment().override({key.replace("__", "."): value for key, value in changes.items()})
    return resolve(experiment, opened).experiment


class Fake:
    """As much of a corpus as a choice looks at."""

    def __init__(self, seconds: list[float], sample_rate: int = 16000, source_rate: int | None = None) -> None:
        self.name, self.sample_rate = "fake", sample_rate
        self.seconds = np.asarray(seconds, dtype=float)
        self.payload = waveform_payload(sample_rate)
        self.source_rates = np.full(len(seconds), source_rate or sample_rate)

    def __len__(self) -> int:
        return len(self.seconds)


def test_another_corpus_brings_its_own_rate() -> None:
    base = Experiment().override({"data.corpus": "a", "data.sample_rate": 16000})
    assert base.override({"data.corpus": "b"}).data.sample_rate == "auto"
    assert base.override({"data.corpus": "b", "data.sample_rate": 8000}).data.sample_rate == 8000
    assert base.override({"data.corpus": "a"}) == base
    assert base.override({"data.sample_rate": 16000.0}).digest() == base.digest()


# -- what is chosen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "window"),
    [
        ([5.0] * 50, 5.0),
        ([5.004] * 50, 5.0),
        ([0.42] * 50, 0.5),
        ([0.3] * 10 + [0.5] * 80 + [0.9] * 10, 0.5),
        ([6.9] * 50, 7.0),
        ([1.0] * 60 + [9.0] * 40, 2.0),  # twice the median, so that most of a window is no padding
        ([30.0] * 50, 10.0),
        ([0.03] * 50, 0.05),
    ],
)
def test_the_window_covers_most_clips_without_being_mostly_padding(seconds: list[float], window: float) -> None:
    found, why = choose_window(Fake(seconds))  # type: ignore[arg-type]
    assert found == window
    assert "median" in why


def test_esc10_gets_the_defaults_that_it_had(esc10_root: Path, tmp_path: Path) -> None:
    manifest = sources.read(esc10_root, "esc50", subset="esc10")
    few = dataclasses.replace(manifest, clips=manifest.clips[::10])
    prepare(few, tmp_path / "esc10", sample_rate=16000, workers=2)
    found = resolved(tmp_path / "esc10")
    flat = {key: FORMER[key] for key in FORMER if key != "data.split"}
    assert found.data.split == FORMER["data.split"]
    assert {key: found.to_dict()[key.split(".")[0]][key.split(".")[1]] for key in flat} == flat


@pytest.mark.parametrize(
    ("layout", "kind"),
    [("folder", "k_fold"), ("groups", "k_fold"), ("splits", "official"), ("folds", "folds"), ("torn", "k_fold"), ("pair", "k_fold")],
)  # fmt: skip
def test_the_split_is_one_that_the_corpus_has(layout: str, kind: str, corpora: dict[str, Path]) -> None:
    corpus = Corpus.open(corpora[layout])
    answer = resolve(Experiment(), corpus)
    scheme = answer.experiment.data.split
    assert scheme.kind == kind
    split = scheme.assign(corpus)
    assert len(split.test) or layout == "pair"  # two groups cannot be divided in three
    why = next(choice.why for choice in answer.choices if choice.key == "data.split")
    assert ("both sides" in why) == (layout == "folder")
    assert ("two sides" in why) == (layout == "torn")  # says why it is not the published folds


def test_a_resolved_experiment_holds_no_auto_and_resolves_to_itself(corpora: dict[str, Path]) -> None:
    corpus = Corpus.open(corpora["folder"])
    answer = resolve(Experiment(), corpus)
    flat = {key: value for key, value in answer.experiment.flatten().items() if key != "training.precision"}
    assert "auto" not in flat.values()
    again = resolve(answer.experiment, corpus)
    assert again.experiment == answer.experiment
    assert not again.choices
    assert Experiment.from_json(answer.experiment.to_json()).digest() == answer.experiment.digest()
    assert answer.tags["from_data"].startswith("data.sample_rate=8000, data.clip_seconds=")


@pytest.mark.parametrize("rate", [1000, 4000, 8000, 11025, 16000, 22050, 44100, 96000])
@pytest.mark.parametrize("clip_seconds", [0.05, 0.42, 1.0, 10.0])
@pytest.mark.parametrize("model", ["small_cnn", "cnn4"])
def test_features_that_follow_the_data_suit_every_model(rate: int, clip_seconds: float, model: str) -> None:
    extractor = LogMel().fitted(rate, clip_seconds).build(rate)
    shape = (1, extractor.n_bins, extractor.frames(round(rate * clip_seconds)))
    Experiment().override({"model": model}).model.build(shape, 3)  # refuses too few bands or frames
    assert extractor.hop_length >= rate // 2000


def test_bands_end_where_the_signal_does() -> None:
    upsampled = Fake([1.0] * 20, sample_rate=16000, source_rate=8000)
    experiment = Experiment().override({"data.split": "folds"})
    assert resolve(experiment, upsampled).experiment.features.f_max == 4000.0  # type: ignore[arg-type, attr-defined]
    original = Fake([1.0] * 20, sample_rate=8000)
    assert resolve(experiment, original).experiment.features.f_max is None  # type: ignore[arg-type, attr-defined]


# -- the order: the base, then what is overridden, then the rest ----------------------------------------------------


def test_a_key_set_by_hand_is_kept_and_the_rest_follows_it(corpora: dict[str, Path]) -> None:
    found = resolved(corpora["folder"], data__clip_seconds=0.1, features__n_fft=256)
    assert (found.data.clip_seconds, found.features.n_fft) == (0.1, 256)  # type: ignore[attr-defined]
    assert found.features.hop_length < resolved(corpora["folder"]).features.hop_length  # type: ignore[attr-defined]


def test_an_arm_does_not_move_what_the_base_left_to_the_data(corpora: dict[str, Path]) -> None:
    corpus = Corpus.open(corpora["folder"])
    made = Ablation("s", Experiment().override({"data.corpus": "folder"}), "plain",
                    {"plain": {}, "bands": {"features.n_mels": 200}, "mfcc": {"features.kind": "mfcc"}}, seeds=(0,))  # fmt: skip
    settled, _ = settle(made, corpus)
    plain, bands, mfcc = (settled.arm(arm).features for arm in made.arms)
    assert (bands.n_fft, bands.hop_length) == (plain.n_fft, plain.hop_length)  # type: ignore[attr-defined]
    assert (mfcc.n_fft, mfcc.hop_length) == (plain.n_fft, plain.hop_length)  # type: ignore[attr-defined]
    assert {p.fold for p in check_plan(dataclasses.replace(made, arms={"plain": {}, "mfcc": {"features.kind": "mfcc"}}), corpus).cells} == {1, 2, 3, 4, 5}  # fmt: skip


def test_all_folds_of_an_official_split_are_that_split(corpora: dict[str, Path]) -> None:
    corpus = Corpus.open(corpora["splits"])
    left = Ablation("s", Experiment().override({"data.corpus": "splits"}), "a", {"a": {}, "b": {"augment.mixup": "on"}})
    assert {p.fold for p in check_plan(left, corpus).cells} == {0}
    official = left.base.override({"data.split": "official"})  # as set by hand for a file with folds="all"
    by_hand = dataclasses.replace(left, base=official)
    assert {p.fold for p in check_plan(by_hand, corpus).cells} == {0}
    assert settle(by_hand, corpus)[0].folds is None
    with pytest.raises(UserError, match=r"has no folds \(1, 2\): set folds=None"):
        dataclasses.replace(left, base=official, folds=(1, 2))


def test_a_trial_keeps_the_base_and_completes_what_it_adds(corpora: dict[str, Path]) -> None:
    study = Study("s", Experiment().override({"data.corpus": "folder"}), lambda trial: {})
    settled = settle_study(study, Corpus.open(corpora["folder"]), None)
    assert isinstance(settled.base, Experiment)
    trial = settled.experiment({"features.kind": "mfcc", "data.clip_seconds": 2.0})
    assert isinstance(trial, Experiment)
    assert trial.features.hop_length == 128  # type: ignore[attr-defined]
    assert settled.experiment({"data.clip_seconds": 2.0}).features == settled.base.features  # type: ignore[attr-defined]


def test_a_study_of_the_time_of_fixed_defaults_goes_on_with_them(corpora: dict[str, Path]) -> None:
    corpus = Corpus.open(corpora["folds"])
    study = Study("s", Experiment().override({"data.corpus": "folds", "data.sample_rate": 8000}), lambda trial: {})
    old = settle_study(study, corpus, {"base": {}})
    assert isinstance(old.base, Experiment)
    assert (old.base.data.clip_seconds, old.base.features.hop_length) == (5.0, 256)  # type: ignore[attr-defined]
    assert old.experiment({"features.kind": "mfcc"}).features.n_fft == 1024  # type: ignore[attr-defined]
    new = settle_study(study, corpus, None)
    assert new.base.data.clip_seconds < 1.0  # type: ignore[attr-defined]
    assert settle_study(study, corpus, new.identity()).base == new.base


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({"data.split.test_fold": 2}, "folds"), ({"data.split.test_fraction": 0.1}, "grouped"), ({"data.split.k": 3}, "k_fold")],
)  # fmt: skip
def test_a_key_of_a_split_chooses_its_kind(changes: dict[str, Any], kind: str) -> None:
    assert Experiment().override(changes).data.split.kind == kind


def test_a_key_of_several_splits_asks_for_the_kind() -> None:
    with pytest.raises(ConfigError, match=r"data\.split\.kind as well.*grouped"):
        Experiment().override({"data.split.val_fraction": 0.1})


# -- what is set by hand against the data ----------------------------------------------------------------------------


def faults(corpus: Any, **changes: Any) -> list[str]:
    experiment = Experiment().override({"data.split": "folds", **{k.replace("__", "."): v for k, v in changes.items()}})
    return hand_set_faults(resolve(experiment, corpus), corpus)


def test_padding_is_warned_of_with_the_better_window() -> None:
    (line,) = faults(Fake([0.42] * 20), data__clip_seconds=5.0)
    assert "92% of the windows is padding" in line
    assert "data.clip_seconds=0.5" in line


def test_a_small_part_of_each_clip_is_warned_of() -> None:
    (line,) = faults(Fake([10.0] * 20), data__clip_seconds=0.5)
    assert "20 windows long" in line
    assert "data.clip_seconds=10" in line


def test_bands_above_the_signal_are_warned_of() -> None:
    (line,) = faults(Fake([1.0] * 20, 16000, 8000), features__f_max=8000.0)
    assert "4000 Hz" in line
    assert "features.f_max=4000" in line


def test_what_fits_or_was_left_to_the_data_is_not_warned_of() -> None:
    assert faults(Fake([30.0] * 20)) == []
    assert faults(Fake([1.0] * 20, 16000, 8000)) == []
    assert faults(Fake([0.42] * 20), data__clip_seconds=0.5) == []


# -- the commands ----------------------------------------------------------------------------------------------------

STUDY = """
from audio_cls.experiment import Experiment
from audio_cls.study import Study
STUDY = Study("mine", Experiment().override({"data.corpus": "CORPUS"}),
              lambda trial: {"optimizer.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)})
"""
ABLATION = """
from audio_cls.ablation.declaration import Ablation
from audio_cls.experiment import Experiment
ABLATION = Ablation("mine", Experiment().override({"data.corpus": "CORPUS", **CHANGES}), "plain",
                    {"plain": {}, "mixup": {"augment.mixup.alpha": 0.3}}, seeds=range(1))
"""


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("data.split=folds", "no fold"),
        ("data.split=official", "no"),
        ("data.sample_rate=16000", "packed at 8000 Hz"),
        ("model=logistic_regression", "embedding"),
        ("features.n_fft=16", "features.n_mels=64"),
    ],
)
@pytest.mark.parametrize("command", ["train", "study", "ablate"])
def test_a_refusal_leaves_nothing_behind(
    command: str, key: str, says: str, corpora: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(corpora["folder"], tmp_path / "corpora" / "folder")
    (tmp_path / "study.py").write_text(STUDY.replace("CORPUS", "folder"))
    name, _, value = key.partition("=")
    changes = {name: int(value) if value.isdigit() else value}
    (tmp_path / "suite.py").write_text(ABLATION.replace("CORPUS", "folder").replace("CHANGES", repr(changes)))
    before = tree(tmp_path)
    words = {
        "train": ("train", "--set", "data.corpus=folder", "--set", key),
        "study": ("study", "run", str(tmp_path / "study.py"), "--trials", "1", "--set", key),
        "ablate": ("ablate", "run", str(tmp_path / "suite.py")),
    }[command]
    assert says in call(capsys, tmp_path, *words, code=2)
    assert {path for path in tree(tmp_path) - before if "__pycache__" not in path} == set()


@pytest.mark.slow
def test_what_is_recorded_is_what_the_defaults_became(
    corpora: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = "folder"
    shutil.copytree(corpora[layout], tmp_path / "corpora" / layout)
    small = ["--set", f"data.corpus={layout}", "--set", "training.epochs=1", "--set", "model.widths=[4]"]
    shown = command(capsys, tmp_path, "train", *small, "--set", "data.clip_seconds=5")
    assert shown.count("is padding") == 1
    assert "data.split=" in shown
    states = [json.loads(p.read_text()) for p in (tmp_path / "checkpoints" / "runs").glob("*/run.json")]
    (experiment,) = (Experiment.parse(state["experiment"]) for state in states)
    assert experiment.data.sample_rate == 8000
    assert experiment == resolve(experiment, Corpus.open(corpora[layout])).experiment
