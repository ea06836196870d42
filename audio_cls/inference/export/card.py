"""The model card of an exported run: what it is, what it was trained on, how good it is, what it must not be used for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

from audio_cls.components.models import parameter_count
from audio_cls.data.getting.catalogue import CATALOGUE
from audio_cls.metrics.baselines import baseline_name, finite_figures
from audio_cls.metrics.bootstrap import figure_intervals

if TYPE_CHECKING:
    from audio_cls.inference.run_labeller import RunLabeller
    from audio_cls.runs.evaluation import Scored
    from audio_cls.tracking import RunInfo

__all__ = ["Card", "write_card"]


@dataclass(frozen=True)
class Card:
    """What a card is written from.

    Attributes:
        labeller: the run's classifier.
        scored: its validation clips, None where the corpus is not here; `reason` then says why.
        sizes, times_real_time: of each model file, in bytes, and seconds of audio a second on one thread.
        parity: file -> largest difference of a probability to the run's, on `clips`.
        int8: metric, by floats, in 8 bits, number of clips.
    """

    labeller: RunLabeller
    info: RunInfo
    scored: Scored | None
    reason: str
    sizes: dict[str, int]
    times_real_time: dict[str, float]
    parity: dict[str, float]
    clips: str
    int8: tuple[str, float, float, int] | None


def write_card(card: Card) -> str:
    """Return the card as Markdown."""
    parts = [_head(card), _use(card), _data(card), _figures(card), _limits(card), _files(card), _origin(card)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(card: Card) -> str:
    experiment, labeller = card.labeller.experiment, card.labeller
    answer = "one label for a recording" if labeller.task == "multiclass" else "any number of labels for a recording"
    size = f"{parameter_count(labeller.classifier, frozen=True):,} parameters"
    return (
        f"# {card.info.name}\n\nAn audio classifier of {len(labeller.classes)} classes, {answer}: "
        f"`{experiment.model.kind}` ({size}) on `{experiment.features.kind}` features.\n\n"
        f"Classes: {', '.join(labeller.classes)}."
    )


def _use(card: Card) -> str:
    labeller = card.labeller
    windows = "Recordings are judged as a whole."
    if labeller.window_seconds is not None:
        fill = {"zero": "with silence on both sides", "end": "with silence at the end", "tile": "by repetition"}
        windows = (
            f"A recording shorter than {labeller.window_seconds:g} s is filled {fill[labeller.pad]}; "
            f"{labeller.evaluation.describe(labeller.window_seconds)}. The models do both themselves."
        )
    called = "The label with the highest probability is the answer."
    if labeller.task == "multilabel":
        called = "A label is called from its threshold in `classes.json` on" + (
            "." if labeller.thresholds is not None else "; none were tuned: from 0.5 on."
        )
    return (
        f"## Use\n\nInput `waveform`: (batch, samples) float32, mono, from -1 to 1, at {labeller.sample_rate} Hz, of any length (resample "
        f"other rates first). Output `probabilities`: (batch, {len(labeller.classes)}). {windows} {called}\n\n"
        "```\npython run_onnx.py FILE.wav          # onnxruntime, numpy and soundfile\naudio-cls predict THIS-FOLDER FILE.wav   # "
        "any rate, long recordings, timelines\n```\n\n"
        '```python\nimport torch\nmodel = torch.export.load("model.pt2").module()\nprobabilities = model(waveform)\n```\n\n'
        "Memory grows with the length of a recording: cut one of more than some minutes, or use `audio-cls predict`."
    )


def _data(card: Card) -> str:
    data = card.labeller.experiment.data
    if card.scored is None:
        return f"## Data\n\nCorpus `{data.corpus}`; it was not at hand for this card ({card.reason})."
    corpus, split = card.scored.corpus, card.scored.split
    sides = ", ".join(f"{len(clips):,} {side}" for side, clips in split.sides().items() if len(clips))
    layout = corpus.source.partition(":")[0]
    known = CATALOGUE.get(layout)
    licence = (
        f"{known.title}: {known.licence} ({known.page})" if known else "not known to audio_cls; ask who published it"
    )
    lines = [
        f"Corpus `{corpus.name}`, layout {layout}: {len(corpus):,} clips, {float(corpus.seconds.sum()) / 3600:.2f} h, packed at "
        f"{card.labeller.sample_rate} Hz (digest {corpus.digest[:12]}). Clips: {sides} (`data.split.kind={data.split.kind}`).",
        f"Licence of the data: {licence}.",
        *([corpus.note] if corpus.note else []),
    ]
    return "## Data\n\n" + "\n\n".join(lines)


def _figures(card: Card) -> str:
    if card.scored is None:
        rows = [
            f"| {k.removeprefix('best/')} | {v:.4f} |"
            for k, v in sorted(card.info.metrics.items())
            if k.startswith("best/")
        ]
        return (
            "## Figures\n\nOn validation clips, as the run recorded them:\n\n| metric | value |\n|---|---|\n"
            + "\n".join(rows)
        )
    scored = card.scored
    baseline = finite_figures(scored.baseline)
    rows = []
    for name, found in figure_intervals(scored.predictions, 1000).items():
        if isfinite(found.estimate):
            interval = f"{found.low:.3f} to {found.high:.3f}" if isfinite(found.low) else "none"
            other = f"{baseline[name]:.3f}" if name in baseline else ""
            rows.append(f"| {name} | {found.estimate:.3f} | {interval} | {other} |")
    n = len(scored.clips)
    head = f"| metric | {n:,} validation clips | 95 % interval | {baseline_name(scored.corpus.task)} |\n|---|---|---|---|\n"
    told = [
        *replace(scored.judgement(), advice="").lines,
        *([scored.predictions.threshold_note] if scored.predictions.threshold_note else []),
    ]
    return "## Figures\n\n" + head + "\n".join(rows) + "".join(f"\n\n{line}" for line in told)


def _limits(card: Card) -> str:
    lines = [
        "The validation clips chose the epoch (and, in a search, the settings): figures of new clips are likely lower.",
        "It knows its classes only: any other sound gets one of them, or a probability, too. Recordings that differ from the training clips "
        "(microphone, room, level, noise) are not covered by the figures.",
    ]
    if card.scored is not None:
        lines += card.scored.remarks
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _files(card: Card) -> str:
    rows = []
    for file, size in card.sizes.items():
        difference = f"{card.parity[file]:.1e}" if file in card.parity else "see below"
        rows.append(f"| {file} | {size / 1e6:.2f} MB | {card.times_real_time[file]:,.0f} | {difference} |")
    text = (
        "## Files\n\n| file | size | times real time, here | largest difference to the run |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nDifferences are of probabilities, on {card.clips}, to the run computed in single precision. Speed is that of the machine that "
        "exported, in batches of eight windows."
    )
    if card.int8 is not None:
        metric, floats, bits, n = card.int8
        text += (
            f"\n\n`model.int8.onnx` has weights and activations of 8 bits, their ranges taken from training clips: {metric} {bits:.4f} "
            f"instead of {floats:.4f} on {n:,} validation clips ({bits - floats:+.4f})."
        )
    return text


def _origin(card: Card) -> str:
    tags = card.info.tags
    experiment = card.labeller.experiment
    chosen = card.scored.chosen if card.scored is not None else f"the best epoch by {experiment.training.metric}"
    lines = [f"Run {card.info.run_id}, weights of {chosen}."]
    if "study" in tags:
        lines.append(f"A trial of the study `{tags['study']}`: its settings were chosen by a search.")
    if commit := tags.get("mlflow.source.git.commit"):
        lines.append(f"Code: commit {commit[:12]}.")
    settings = "\n".join(f"{key} = {value}" for key, value in experiment.flatten().items())
    return f"## How it was made\n\n{' '.join(lines)}\n\n<details><summary>Settings</summary>\n\n```\n{settings}\n```\n\n</details>"
