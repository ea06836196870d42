"""The warning of settings that weigh classes twice, with each class's share of the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from audio_cls.ablation.contract import check_plan
from audio_cls.ablation.declaration import Ablation
from audio_cls.ablation.running import arm_warnings
from audio_cls.data import sources
from audio_cls.data.corpus import Corpus
from audio_cls.data.packing import prepare
from audio_cls.experiment import Experiment
from audio_cls.runs import resolve as resolve_module
from audio_cls.runs.resolve import Resolved, announce, resolution_warnings, resolve
from audio_cls.runs.weighting import class_shares, draws_warning, weighting_warning
from audio_cls.study import Study
from audio_cls.study.losses import space_warning
from tests.ablation.test_ablation import BASE


@pytest.fixture(scope="module")
def corpus(tones_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """21 clips: 10 hums, 7 hisses, 4 beeps."""
    source = tones_corpus.parent.parent / "source"
    lines = (source / "clips.csv").read_text().splitlines()
    kept = [f"audio/{name}{i}.wav," for name, n in (("hum", 10), ("hiss", 7), ("beep", 4)) for i in range(n)]
    rows = [line for line in lines[1:] if line.startswith(tuple(kept))]
    (source / "few.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    folder = tmp_path_factory.mktemp("few") / "few"
    prepare(sources.read(source / "few.csv", "csv"), folder, sample_rate=8000, workers=1)
    return Corpus.open(folder)


def made(corpus: Corpus, **changes: Any) -> Experiment:
    settings = {"data.corpus": "few", "data.split.test_fold": 1}
    return resolve(
        BASE.override({**settings, **{k.replace("__", "."): v for k, v in changes.items()}}), corpus
    ).experiment


def test_shares_are_counted_clips_times_weights(corpus: Corpus) -> None:
    plain = {s.name: (s.clips, s.loss) for s in class_shares(made(corpus), corpus)}
    assert plain["hum"][0] > plain["hiss"][0] > plain["beep"][0] > 0
    assert all(clips == pytest.approx(loss) for clips, loss in plain.values())
    for changes in ({"loss__class_weights": "inverse"}, {"sampling": "balanced"}, {"loss": "logit_adjusted"}):
        shares = class_shares(made(corpus, **changes), corpus)
        assert [s.loss for s in shares] == pytest.approx([1 / 3] * 3, abs=0.05), changes
    both = {
        s.name: s.loss for s in class_shares(made(corpus, loss__class_weights="inverse", sampling="balanced"), corpus)
    }
    counts = {name: share[0] for name, share in plain.items()}
    inverse = {name: 1 / n for name, n in counts.items()}  # shown equally often, weighed by 1 / n
    expected = {name: value / sum(inverse.values()) for name, value in inverse.items()}
    assert both == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"loss__class_weights": "inverse"}, ""),
        ({"sampling": "balanced"}, ""),
        ({"loss__prior_bias": True}, ""),
        ({"loss__class_weights": "inverse", "sampling": "balanced"}, "both raise rare classes"),
        ({"loss__class_weights": "effective", "sampling": "repeat_factor"}, "both raise rare classes"),
        ({"loss__class_weights": "inverse", "loss__prior_bias": True}, "prior_bias=true starts at the share of the clips"),
        ({"sampling": "balanced", "loss__prior_bias": True}, "prior_bias=true starts at the share of the clips"),
        ({"loss": "logit_adjusted"}, ""),
        ({"sampling": "rarest_label"}, ""),
        ({"sampling": "rarest_label", "loss__class_weights": "inverse"}, "both raise rare classes"),
        ({"sampling": "rarest_label", "loss": "logit_adjusted"}, "loss.kind=logit_adjusted and sampling.kind=rarest_label both"),
        ({"sampling": "balanced", "loss": {"kind": "logit_adjusted", "tau": 0.0}}, ""),
    ],
    ids=str,
)  # fmt: skip
def test_two_settings_that_weigh_classes_are_warned_of(
    changes: dict[str, Any], words: str, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = made(corpus, **changes)
    warning = weighting_warning(experiment, corpus)
    assert bool(warning) == bool(words)
    said: list[str] = []
    monkeypatch.setattr(resolve_module, "say", lambda text, err=False: said.append(text))
    announce(Resolved(experiment), corpus)
    assert (warning.removeprefix("warning: ") in resolution_warnings(Resolved(experiment), corpus)) == bool(words)
    assert (warning in said) if words else not any("of the loss" in line for line in said)
    if words:
        assert words in warning
        table = [line.split() for line in warning.splitlines()[2:]]
        assert [row[0] for row in table] == list(corpus.classes)
        assert sum(float(row[2].rstrip("%")) for row in table) == pytest.approx(100, abs=0.3)


def test_draws_of_a_space_that_weigh_classes_twice_are_counted(corpus: Corpus) -> None:
    plain, once = made(corpus), made(corpus, sampling="balanced")
    twice = made(corpus, sampling="balanced", loss__class_weights="inverse")
    assert draws_warning([plain, once], plain) == ""
    warning = draws_warning([plain, twice, once, twice], plain)
    assert "2 of 4 draws" in warning
    assert "loss.class_weights=inverse with sampling.kind=balanced" in warning
    assert draws_warning([twice, twice], twice) == ""  # told with the base


def test_an_arm_that_weighs_classes_twice_is_warned_of_by_its_name(corpus: Corpus) -> None:
    arms = {
        "plain": {}, "balanced": {"sampling": "balanced"}, "adjusted": {"loss": "logit_adjusted"},
        "both": {"sampling": "rarest_label", "loss": "logit_adjusted"},
    }  # fmt: skip
    suite = Ablation("suite", made(corpus), "plain", arms, seeds=range(2), folds=None)
    (warning,) = arm_warnings(suite, check_plan(suite, corpus, torch.device("cpu")), corpus)
    assert warning.startswith("arm both: warning: loss.kind=logit_adjusted and sampling.kind=rarest_label both raise")
    assert all(name in warning for name in corpus.classes)


def test_a_space_that_can_weigh_classes_twice_is_warned_of(corpus: Corpus) -> None:
    def space(trial: Any) -> dict[str, Any]:
        return {
            "loss.class_weights": trial.suggest_categorical("weights", ["none", "inverse"]),
            "sampling": trial.suggest_categorical("sampling", ["uniform", "balanced"]),
        }

    warning = space_warning(Study("weighed", base=made(corpus), space=space))
    assert "draws of this search space weigh classes twice" in warning
    assert "loss.class_weights=inverse with sampling.kind=balanced" in warning

    def one_way(trial: Any) -> dict[str, Any]:
        way = trial.suggest_categorical("way", ["none", "weights", "sampling"])
        return {"weights": {"loss.class_weights": "inverse"}, "sampling": {"sampling": "balanced"}}.get(way, {})

    assert space_warning(Study("weighed", base=made(corpus), space=one_way)) == ""
