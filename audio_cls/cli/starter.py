"""`audio-cls init CORPUS`: a study and an ablation to start from, fitted to a corpus and commented."""

from __future__ import annotations

import importlib.metadata
import pprint
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import numpy as np

from audio_cls.cli.console import say
from audio_cls.core.errors import UserError
from audio_cls.core.workspace import Workspace, atomic_write
from audio_cls.data.corpus import Corpus
from audio_cls.experiment import Experiment, feature_shape
from audio_cls.runs.preparation import check_fits, open_corpus
from audio_cls.runs.resolve import resolve

__all__ = ["Fitted", "ablation_text", "fit", "init_command", "study_text"]

IMBALANCED = 3.0  # clips of the most frequent class for each of the rarest, from which on class weights are worth a try
LARGE = 2000  # training clips from which on the larger network is taken
STEPS = 1500  # optimiser steps of a run, about
CELLS_PER_SECOND = {
    "small_cnn": 4.5e6,
    "cnn4": 2.5e6,
}  # values of a spectrogram, trained on by one core; measured on ESC-10
TRIALS, WORKERS = 30, 2
FEATURES = {"sequence": "frames", "image": "pixels"}  # of the domains that the default features do not take


@dataclass(frozen=True)
class Fitted:
    """What a corpus suggests.

    stem: the files' name, and the study's and the suite's. base: the experiment as nested keys, without defaults.
    comments: top-level key of `base` -> why it is so. folds: those of the split, 0 for one without. run_seconds: a guess.
    """

    stem: str
    corpus: Corpus
    experiment: Experiment
    base: dict[str, Any]
    comments: dict[str, str]
    imbalance: float
    n_train: int
    folds: int
    frames: int
    run_seconds: float

    @property
    def imbalanced(self) -> bool:
        return self.imbalance >= IMBALANCED


def init_command(workspace: Workspace, name: str, *, force: bool) -> None:
    """Write `studies/NAME.py` and `experiments/NAME.py` in the current folder.

    Raises:
        UserError: when one of them is there already, unless `force`; nothing is written then.
    """
    corpus = open_corpus(workspace, name)
    fitted = fit(corpus, name)
    texts = {
        Path("studies") / f"{fitted.stem}.py": study_text(fitted),
        Path("experiments") / f"{fitted.stem}.py": ablation_text(fitted),
    }
    there = [str(path) for path in texts if path.exists()]
    if there and not force:
        raise UserError(
            f"{' and '.join(there)}: there already, and not overwritten. --force replaces it, or rename it first"
        )
    for path, text in texts.items():
        atomic_write(path, text)
        say(f"wrote {path}")
    say(f"Next: audio-cls study run studies/{fitted.stem}.py --trials {TRIALS} --workers {WORKERS}")
    say(f"      audio-cls ablate run experiments/{fitted.stem}.py --workers {WORKERS}")


def fit(corpus: Corpus, name: str) -> Fitted:
    """Choose a first experiment for a corpus."""
    multilabel = corpus.task == "multilabel"
    features = FEATURES.get(corpus.payload.domain)
    changes = {"data.corpus": name, **({"loss": "bce"} if multilabel else {})}
    changes |= {"features": features} if features else {}
    resolved = resolve(Experiment().override(changes), corpus)
    why = {choice.key: choice.why for choice in resolved.choices}
    data, split = resolved.experiment.data, resolved.experiment.data.split
    counts = corpus.class_counts()
    imbalance = float(counts.max() / max(1, counts.min()))
    n_train = len(split.assign(corpus).train)
    batch = 16 if n_train < 300 else 32
    epochs = int(np.clip(round(STEPS * batch / n_train), 10, 80))
    model = "mlp" if corpus.payload.domain == "sequence" else "cnn4" if n_train >= LARGE else "small_cnn"
    metric = "val/map" if multilabel else "val/macro_f1"
    base: dict[str, Any] = {
        "data": {"corpus": name, "clip_seconds": data.clip_seconds, "split": _short(split.to_dict())},
        **({"features": {"kind": features}} if features else {}),
        "model": {"kind": model},
        **({"loss": {"kind": "bce"}} if multilabel else {}),
        "training": {"epochs": epochs, "batch_size": batch, "metric": metric},
    }
    follows = f"The sample rate ({data.sample_rate} Hz) and the features' n_fft and hop_length follow the data"
    follows = follows if corpus.payload.is_waveform else ""
    comments = {
        "data": f"{why['data.clip_seconds']}. Split: {why['data.split']}. {follows}",
        "features": f"for rows that are no waveforms: {corpus.payload.describe()}",
        "model": f"for {n_train} training clips; `cnn4` is larger, `audio-cls keys model` lists all",
        "loss": "a clip may have several labels",
        "training": f"about {epochs * -(-n_train // batch):,} steps. {_why_metric(corpus, imbalance)}",
    }
    experiment = Experiment.parse(base)
    whole = resolve(experiment, corpus).experiment
    check_fits(whole, corpus)
    shape = feature_shape(whole, whole.features.build_for(corpus.payload))
    seconds = epochs * n_train * float(np.prod(shape)) / CELLS_PER_SECOND.get(model, CELLS_PER_SECOND["small_cnn"]) + 5
    return Fitted(
        _stem(name), corpus, whole, base, comments, imbalance, n_train, len(split.folds(corpus)), shape[-1], seconds
    )


def study_text(fitted: Fitted) -> str:
    """The study's file."""
    epochs = fitted.base["training"]["epochs"]
    again = " --folds all --seeds 3" if fitted.folds else " --seeds 3"
    head = f'''\
        """Search for a classifier of {_described(fitted)}.

            audio-cls study run studies/{fitted.stem}.py --trials {TRIALS} --workers {WORKERS}
            audio-cls study best {fitted.stem} --json > best.json
            audio-cls train best.json{again} --workers {WORKERS}

        A first look: --trials 2 --set training.epochs=1. A guess at the cost of {TRIALS} trials on two cores, half of them pruned:
        {_minutes(0.75 * TRIALS * fitted.run_seconds / WORKERS)}. Written by `audio-cls init`; change what you like before the first run.
        """

        from audio_cls import TPE, Experiment, Median, Study

        '''
    masks = max(2, fitted.frames // 6)
    lines = ['"optimizer.lr": trial.suggest_float("lr", 3e-4, 1e-2, log=True),']
    lines.append('"optimizer.weight_decay": trial.suggest_float("weight_decay", 1e-3, 1e-1, log=True),')
    lines.append('"model.dropout": trial.suggest_float("dropout", 0.0, 0.5),')
    if fitted.imbalanced:
        lines.append('"loss.class_weights": trial.suggest_categorical("class_weights", ["none", "inverse"]),')
    space = f'''

        def space(trial):
            """Overrides of BASE for one trial. Whatever `audio-cls keys` lists can be searched; conditions are plain Python."""
            changes = {{
{indent(chr(10).join(lines), " " * 16)}
            }}
            if trial.suggest_categorical("mixup", [False, True]):
                changes["augment.mixup.alpha"] = trial.suggest_float("mixup_alpha", 0.1, 0.6)
            if trial.suggest_categorical("specaugment", [False, True]):  # masks of a window of {fitted.frames} frames
                changes["augment.specaugment.time_mask_frames"] = trial.suggest_int("time_mask_frames", {max(1, masks // 4)}, {masks})
            return changes


        STUDY = Study(
            "{fitted.stem}",
            base=BASE,
            space=space,
            metric="{fitted.base["training"]["metric"]}",
            direction="maximize",
            sampler=TPE(seed=0, startup_trials=8),
            pruner=Median(startup_trials=5, warmup_epochs={max(1, epochs // 5)}),  # a trial worse than the median is stopped
        )
        '''
    return dedent(head) + _base_text(fitted) + dedent(space)


def ablation_text(fitted: Fitted) -> str:
    """The ablation's file."""
    masks = max(2, fitted.frames // 6)
    arms: dict[str, dict[str, Any]] = {
        "plain": {},
        "mixup": {"augment.mixup.alpha": 0.3},
        "specaugment": {"augment.specaugment.time_mask_frames": masks, "augment.specaugment.freq_mask_bins": 8},
    }
    if fitted.imbalanced:
        arms["class-weights"] = {"loss.class_weights": "inverse"}
    seeds = 1 if fitted.folds > 5 else 3 if fitted.folds else 5
    runs = len(arms) * seeds * max(1, fitted.folds)
    metrics: tuple[str, ...]
    if fitted.corpus.task == "multilabel":
        metrics = ("val/map", "val/lwlrap", "val/macro_f1")
    else:
        metrics = ("val/macro_f1", "val/uar") if fitted.imbalanced else ("val/macro_f1", "val/accuracy")
    folds = f"{fitted.folds} folds" if fitted.folds else "one split"
    lines = "\n".join(f'"{arm}": {_python(changes)},' for arm, changes in arms.items())
    head = f'''\
        """Which of these helps on {_described(fitted)}?

            audio-cls ablate plan experiments/{fitted.stem}.py --workers {WORKERS}    # what it can detect, and what it costs
            audio-cls ablate run experiments/{fitted.stem}.py --workers {WORKERS}
            audio-cls ablate report {fitted.stem}

        {len(arms)} arms x {seeds} seeds x {folds} = {runs} runs. A guess at the cost on two cores: {_minutes(runs * fitted.run_seconds / WORKERS)}.
        Written by `audio-cls init`; change what you like before the first run.
        """

        from audio_cls import Ablation, Experiment

        '''
    tail = f'''

        ABLATION = Ablation(
            "{fitted.stem}",
            base=BASE,
            reference="plain",
            arms={{  # each differs from BASE in these keys and nothing else
{indent(lines, " " * 16)}
            }},
            metric={_python(metrics)},  # the first is what verdicts are about
            seeds=range({seeds}),
            folds={'"all"' if fitted.folds else "None"},
            question="What helps on {fitted.stem}?",
        )
        '''
    return dedent(head) + _base_text(fitted) + dedent(tail)


def _base_text(fitted: Fitted) -> str:
    lines = []
    for key, value in fitted.base.items():
        comment = fitted.comments.get(key, "")
        lines += [f"    # {line}" for line in _wrapped(comment)]
        lines.append(f'    "{key}": {_python(value)},')
    return "BASE = Experiment.parse({\n" + "\n".join(lines) + "\n})\n"


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(" ".join(text.split()), 110)


def _python(value: Any) -> str:
    return pprint.pformat(value, width=10_000, sort_dicts=False).replace("'", '"')


def _short(split: dict[str, Any]) -> dict[str, Any]:
    """A split as nested keys, without what says nothing."""
    return {key: value for key, value in split.items() if value is not None}


def _why_metric(corpus: Corpus, imbalance: float) -> str:
    if corpus.task == "multilabel":
        return "mAP ranks clips label by label and needs no threshold"
    share = corpus.class_counts().max() / len(corpus)
    if imbalance >= IMBALANCED:
        return (
            f"Macro F1 counts every class alike: calling everything by the most frequent class is {share:.0%} accurate"
        )
    return "Macro F1 counts every class alike"


def _described(fitted: Fitted) -> str:
    corpus = fitted.corpus
    balance = (
        f", {fitted.imbalance:.0f} clips of the most frequent class for one of the rarest" if fitted.imbalanced else ""
    )
    return (
        f"{corpus.name}: {len(corpus):,} clips, {len(corpus.classes)} classes ({corpus.task}){balance}, median "
        f"{np.median(corpus.seconds):.3g} s"
    )


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _stem(name: str) -> str:
    """The corpus's name as a file's, a study's and a suite's; never that of a module that a study file could import."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name).strip("._-")[:50] or "corpus"
    taken = stem in sys.stdlib_module_names or stem in importlib.metadata.packages_distributions()
    return f"{stem}-corpus" if taken else stem
