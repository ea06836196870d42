"""What an experiment leaves to the data ("auto"), chosen for one corpus; and what is set by hand against it.

`resolve` is the one place where these choices are made. Everything that trains, records or compares uses its result, which
holds no "auto" and resolves to itself. The rules:

- `data.sample_rate`: the corpus's.
- `data.clip_seconds`: the shortest usual length that covers 90 % of the clips, at most 10 s and at most twice the median. For rows
  that are no waveforms the shortest length that does. None is the longest clip.
- `data.split`: published folds, else the official split, else five generated folds, stratified, with whole groups.
- `features.n_fft`, `hop_length`, `f_max`: from the rate, the window and the rates of the original files (`Features.fitted`).
- `model.weights.sha256`: of the file, where it is not given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audio_cls.components.features import Features
from audio_cls.components.weights import FileWeights
from audio_cls.core.auto import AUTO, known
from audio_cls.core.config import Component
from audio_cls.core.errors import UserError
from audio_cls.core.notices import say
from audio_cls.data.corpus import Corpus
from audio_cls.data.default_split import choose_split
from audio_cls.data.identical import identical_on_two_sides
from audio_cls.data.remarks import split_warnings
from audio_cls.data.splits import Folds
from audio_cls.experiment import Experiment
from audio_cls.runs.pretrained import features_warning, with_hash
from audio_cls.runs.weighting import weighting_warning

__all__ = [
    "FORMER",
    "RULES",
    "TAG",
    "Choice",
    "Resolved",
    "announce",
    "choose_window",
    "features_to_draw",
    "hand_set_faults",
    "resolution_warnings",
    "resolve",
]

RULES = 2
"""The version of the rules below. A study or suite records the one that it was started with; 0 stands for `FORMER`, 1 for the
rules by which generated splits did not keep identical clips on one side."""

FORMER: dict[str, Any] = {
    "data.sample_rate": 16000,
    "data.clip_seconds": 5.0,
    "data.split": Folds(),
    "features.n_fft": 1024,
    "features.hop_length": 256,
    "features.f_max": None,
}
"""The fixed defaults that stood where "auto" stands now: studies and suites of that time continue with them."""

TAG = "from_data"  # of a run in MLflow: what was left to the data
LONGEST = 10.0  # seconds of a window that is left to the data
USUAL_SECONDS = (
    *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5),
    *(2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, LONGEST),
)
COVERED = 0.9  # share of the clips that a window should cover
PADDED = 0.5  # a larger share of the window without signal is warned of
WINDOWS = 5  # clips that are longer than so many windows are warned of


@dataclass(frozen=True)
class Choice:
    """One key that was left to the data: what it became and why. `by_hand`: it was set to something that the data complete."""

    key: str
    value: Any
    why: str
    by_hand: bool = False

    @property
    def short(self) -> str:
        value = self.value.kind if isinstance(self.value, Component) else self.value
        return f"{self.key}={'none' if value is None else value}"


@dataclass(frozen=True)
class Resolved:
    """An experiment without "auto", and how it came to be."""

    experiment: Experiment
    choices: tuple[Choice, ...] = ()

    def lines(self) -> list[str]:
        """Return the choices with their reasons, for people; those without a reason of their own in one line."""
        bare = ", ".join(choice.short for choice in self.choices if not choice.why)
        return [f"{choice.short}: {choice.why}" for choice in self.choices if choice.why] + ([bare] if bare else [])

    @property
    def tags(self) -> dict[str, str]:
        """For the record: which keys were left to the data, with what they became; empty when none was."""
        return {TAG: ", ".join(choice.short for choice in self.choices)} if self.choices else {}


def resolve(experiment: Experiment, corpus: Corpus, *, rules: int = RULES) -> Resolved:
    """Choose what an experiment leaves to the data. An experiment without "auto" is returned as it is.

    Args:
        rules: 0 takes the fixed defaults of `FORMER` instead.

    Raises:
        UserError: for a corpus that no split fits, and where the split is not the one that these rules made.
    """
    choices = _former(experiment, corpus) if rules == 0 else _data_choices(experiment, corpus)
    experiment = _with(experiment, choices)
    fitted = _fit_features(experiment, corpus) if rules > 0 else []
    if rules < 2:
        _check_same_split(experiment, corpus)
    hashes = _weights_hash(experiment)
    return Resolved(_with(experiment, [*fitted, *hashes]), (*choices, *fitted, *hashes))


def _weights_hash(experiment: Experiment) -> list[Choice]:
    """Return the hash of a file of pretrained weights, where it is not given: the run depends on what is in the file."""
    weights = experiment.model.weights
    if not isinstance(weights, FileWeights) or weights.sha256:
        return []
    return [Choice("model.weights.sha256", with_hash(weights), f"of {weights.file}", by_hand=True)]


def _check_same_split(experiment: Experiment, corpus: Corpus) -> None:
    """Refuse to go on with a study or suite whose generated split had identical clips on two sides, which are kept together now."""
    scheme = experiment.data.split
    if scheme.allow_duplicates or not corpus.identical:
        return
    former = scheme.model_copy(update={"allow_duplicates": True}).assign(corpus)
    torn = len(identical_on_two_sides(corpus, former))
    if torn and scheme.assign(corpus).digest != former.digest:
        raise UserError(
            f"{corpus.name!r}: this study or suite was begun when identical clips were not looked for, and {torn} sets of them stand "
            f"on two sides of its split. data.split={scheme.kind} keeps them on one side now, which is another split: begin it "
            "anew under another name (with data.split.allow_duplicates=true, on the split that it had)"
        )


def features_to_draw(corpus: Corpus, changes: Mapping[str, Any]) -> Features:
    """Return features of the default kind, with keys `features.` changed and the rest chosen for a corpus.

    Raises:
        UserError: for another key, or features that are no spectrogram.
    """
    others = [key for key in changes if key.partition(".")[0] != "features"]
    if others:
        raise UserError(f"{others[0]}: a spectrogram depends on keys below features only, such as features.n_mels")
    experiment = Experiment().override({"data.split": "k_fold", **changes})
    if experiment.features.output_domain != "spectrogram":
        raise UserError(f"features={experiment.features.kind} is no spectrogram that can be drawn")
    return resolve(experiment, corpus).experiment.features if corpus.payload.is_waveform else experiment.features


def _with(experiment: Experiment, choices: Sequence[Choice]) -> Experiment:
    return experiment.override({choice.key: choice.value for choice in choices}) if choices else experiment


def _left(component: Component, prefix: str) -> list[str]:
    return [f"{prefix}{name}" for name in type(component).model_fields if _is_auto(getattr(component, name))]


def _is_auto(value: Any) -> bool:
    return (isinstance(value, str) and value == AUTO) or (isinstance(value, Component) and value.kind == AUTO)


def _former(experiment: Experiment, corpus: Corpus) -> list[Choice]:
    left = _left(experiment.data, "data.") + _left(experiment.features, "features.")
    return [*(Choice(key, FORMER[key], "") for key in left if key in FORMER), *_whole_clips(experiment, corpus)]


def _whole_clips(experiment: Experiment, corpus: Corpus) -> list[Choice]:
    """Return the length that `data.clip_seconds=none` stands for."""
    if experiment.data.clip_seconds is not None:
        return []
    longest = float(corpus.seconds.max())
    return [Choice("data.clip_seconds", longest, f"whole clips: the longest lasts {longest:.4g} s", by_hand=True)]


def _data_choices(experiment: Experiment, corpus: Corpus) -> list[Choice]:
    left, choices = _left(experiment.data, "data."), []
    if "data.sample_rate" in left:
        choices.append(Choice("data.sample_rate", corpus.sample_rate or corpus.rate, "the corpus's"))
    if "data.clip_seconds" in left:
        choices.append(Choice("data.clip_seconds", *choose_window(corpus)))
    if "data.split" in left:
        choices.append(Choice("data.split", *choose_split(corpus, experiment.data.split.allow_duplicates)))
    return choices + _whole_clips(experiment, corpus)


def _fit_features(experiment: Experiment, corpus: Corpus) -> list[Choice]:
    left = _left(experiment.features, "features.")
    if not left or not corpus.payload.is_waveform:
        return []
    top, clip_seconds = signal_top(corpus), known(experiment.data.clip_seconds, "data.clip_seconds") or 0.0
    fitted = experiment.features.fitted(corpus.sample_rate, clip_seconds, top)
    why = {"features.f_max": f"the original files end at {top:g} Hz" if top else ""}
    return [Choice(key, getattr(fitted, key.removeprefix("features.")), why.get(key, "")) for key in left]


def choose_window(corpus: Corpus) -> tuple[float, str]:
    """Return the window in seconds that fits a corpus, and why."""
    seconds = corpus.seconds
    covering, median = float(np.quantile(seconds, COVERED, method="inverted_cdf")), float(np.median(seconds))
    if corpus.payload.is_waveform:
        most = min(LONGEST, 2 * median)
        usual = np.asarray(USUAL_SECONDS)
        enough = usual[usual >= min(covering, most) * 0.99]
        chosen = float(enough[0]) if len(enough) else LONGEST
    else:
        chosen = min(covering, 2 * median)
    longer = float((seconds > 1.01 * chosen).mean())
    why = f"the clips last {seconds.min():.3g} to {seconds.max():.3g} s, median {median:.3g}"
    if longer:
        why += f"; {longer:.0%} are longer and judged by their middle"
    return chosen, why


def signal_top(corpus: Corpus) -> float | None:
    """Where the signal ends in Hz, for a corpus packed at a higher rate than nine in ten of its files have; None otherwise."""
    rate = int(np.quantile(corpus.source_rates, COVERED, method="higher")) if len(corpus) else corpus.sample_rate
    return rate / 2 if 0 < rate < corpus.sample_rate else None


def hand_set_faults(resolved: Resolved, corpus: Corpus) -> list[str]:
    """Return what is set by hand against the data, a sentence each with the better value; empty for nothing.

    What was left to the data is not judged.
    """
    experiment, chosen = resolved.experiment, {choice.key for choice in resolved.choices if not choice.by_hand}
    lines: list[str] = []
    if "data.clip_seconds" not in chosen and experiment.features.framewise:
        lines += _window_faults(experiment, corpus)
    if experiment.data.evaluation.kind != "centre" and not (corpus.lengths > experiment.data.clip_samples).any():
        lines.append(
            f"data.evaluation={experiment.data.evaluation.kind}: no clip is longer than data.clip_seconds={experiment.data.clip_seconds:g}, "
            "so that each has one window"
        )
    top, f_max = signal_top(corpus), getattr(experiment.features, "f_max", 0.0)
    if top is not None and "features.f_max" not in chosen and (f_max is None or f_max > 1.01 * top):
        bands = f"features.f_max={'none' if f_max is None else f'{f_max:g}'}: bands up to {f_max or corpus.sample_rate / 2:g} Hz"
        lines.append(f"{bands}, but the original files end at {top:g} Hz. Better: features.f_max={top:g}")
    return lines


def announce(resolved: Resolved, corpus: Corpus) -> None:
    """Tell what was chosen from the data, what is set by hand against it, and what the split divides: once, by the process that the user started."""
    if resolved.choices:
        say("from the data:\n  " + "\n  ".join(resolved.lines()))
    for line in resolution_warnings(resolved, corpus):
        say(f"warning: {line}", err=True)


def resolution_warnings(resolved: Resolved, corpus: Corpus) -> list[str]:
    """Return what is set by hand against the data, what the split divides, settings that weigh classes twice, and features other
    than pretrained weights were trained on, a text each.
    """
    found = [*hand_set_faults(resolved, corpus), *split_warnings(corpus, resolved.experiment.data.split)]
    if warning := weighting_warning(resolved.experiment, corpus):
        found.append(warning.removeprefix("warning: "))
    if warning := features_warning(resolved.experiment, corpus.sample_rate):
        found.append(warning)
    return found


def _window_faults(experiment: Experiment, corpus: Corpus) -> Iterable[str]:
    clip_seconds = known(experiment.data.clip_seconds, "data.clip_seconds") or 0.0
    seconds, (better, _) = corpus.seconds, choose_window(corpus)
    padded = float(np.maximum(0.0, 1 - seconds / clip_seconds).mean())
    if padded > PADDED and better < clip_seconds:
        yield (
            f"data.clip_seconds={clip_seconds:g}: {padded:.0%} of the windows is padding, the median clip lasts "
            f"{np.median(seconds):.3g} s. Better: data.clip_seconds={better:g}"
        )
    windows = float(np.median(seconds)) / clip_seconds
    if windows > WINDOWS and better > clip_seconds and experiment.data.evaluation.kind == "centre":
        yield (
            f"data.clip_seconds={clip_seconds:g}: the median clip is {windows:.0f} windows long, and only its middle one is judged. "
            f"Better: data.clip_seconds={better:g}, or data.evaluation=windows, or cut the clips"
        )
