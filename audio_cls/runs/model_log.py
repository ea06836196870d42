"""A complete run's weights as a model in MLflow: what it is described by, and logging it while the run is recorded or afterwards."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from audio_cls.core.errors import UserError
from audio_cls.data.remarks import recorded_remarks
from audio_cls.metrics.base import figure_text
from audio_cls.tracking.registry import logged_model_id

if TYPE_CHECKING:
    from audio_cls.tracking import Run, RunInfo, Tracker

__all__ = ["LogModel", "can_label_audio", "log_model", "log_models", "log_recorded_model"]

log = logging.getLogger(__name__)

LogModel = Literal["best", "all", "none"]
"""Which complete runs become models in MLflow: the best of a search and each single run, all, none."""
_SHOWN = 40  # classes listed by name
_TAGS = ("kind", "study", "config", "ablation.suite", "ablation.arm", "findings")


def can_label_audio(settings: Mapping[str, Any]) -> bool:
    """Return whether a run's model takes waveforms; `settings` is its flattened experiment."""
    from audio_cls.components.features import Features

    kind = str(settings.get("features.kind"))
    member = Features.members().get(kind)
    return member is None or member.input_domain == "waveform"


def log_model(
    run: Run,
    name: str,
    settings: Mapping[str, Any],
    figures: Mapping[str, float],
    tags: Mapping[str, str],
    classes: Sequence[str],
    task: str,
) -> None:
    """Log a complete run's weights as an MLflow model; renew its description and figures where it is there.

    Nothing is logged of a run that was trained on anything but sound.

    Args:
        settings: its flattened experiment.
        figures: as MLflow has them, such as `best/macro_f1`.
        tags: of the run.
    """
    if can_label_audio(settings):
        kept = {k: v for k, v in tags.items() if k in _TAGS}
        run.model(_note(name, settings, figures, tags, classes, task), {"run": name, "task": task, **kept})


def log_recorded_model(tracker: Tracker, info: RunInfo) -> None:
    """Log the model of a run that has ended; renew its figures and description where it is there.

    Raises:
        UserError: for a run that is not complete, or was trained on anything but sound.
    """
    if info.state != "COMPLETE":
        raise UserError(f"run {info.name} ({info.run_id[:8]}) is {info.state}: only a COMPLETE run becomes a model")
    if not can_label_audio(info.params):
        raise UserError(
            f"run {info.name} ({info.run_id[:8]}) has features.kind={info.params.get('features.kind')}: only a model that takes "
            "sound becomes a model in MLflow"
        )
    meta = json.loads(tracker.download(info.run_id, "classes.json").read_text(encoding="utf-8"))
    run = tracker.reopen(info.run_id)
    try:
        log_model(run, info.name, info.params, info.metrics, info.tags, meta["classes"], meta["task"])
    finally:
        run.close()


def log_models(tracker: Tracker, run_ids: Iterable[str]) -> None:
    """Log the models of these complete runs, where they are not there. What keeps one from it is told, and costs nothing else."""
    for run_id in run_ids:
        try:
            info = tracker.resolve(run_id)
            if can_label_audio(info.params) and logged_model_id(tracker, info.run_id) is None:
                log_recorded_model(tracker, info)
        except UserError as error:
            log.warning("no model was logged: %s. The same command again, or audio-cls promote RUN, logs it.", error)
            return


def _note(
    name: str,
    settings: Mapping[str, Any],
    figures: Mapping[str, float],
    tags: Mapping[str, str],
    classes: Sequence[str],
    task: str,
) -> str:
    """Return the description of a model, in Markdown."""
    listed = ", ".join(classes[:_SHOWN]) + (f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else "")
    how = "any of" if task == "multilabel" else "one of"
    parameters = f", {figures['final/parameters']:,.0f} parameters" if "final/parameters" in figures else ""
    rate = settings.get("data.sample_rate")
    parts = [
        f"**{name}**: {settings.get('model.kind')} on {settings.get('features.kind')}{parameters}. It labels sound of any length and "
        f"sample rate (taken to {rate} Hz, mono) with {how} {len(classes)} classes: {listed}.",
        _figures_table(str(settings.get("training.metric", "")).rpartition("/")[2], figures),
        _caveats(settings, figures, tags),
        '```python\nmodel = mlflow.pyfunc.load_model("runs:/RUN_ID/model")\n'
        '# paths, bytes of audio files, or {"audio": [array]} with params={"sample_rate": Hz}\n'
        'model.predict(["clip.wav"])\n```',
    ]
    return "\n\n".join(part for part in parts if part)


def _figures_table(metric: str, figures: Mapping[str, float]) -> str:
    """Return the figures of the metric that the run was judged by and of the common ones, beside the baseline's."""
    names = [m for m in dict.fromkeys([metric, "accuracy", "macro_f1", "map", "mAP"]) if f"best/{m}" in figures]
    tested = any(f"test/{m}" in figures for m in names)
    columns = ["figure", "validation", *(["test"] if tested else []), "a model that learned nothing"]
    lines = [" | ".join(columns), "|".join(["---"] * len(columns))]
    for name in names:
        keys = [f"best/{name}", *([f"test/{name}"] if tested else []), f"baseline/{name}"]
        cells = [figure_text(figures[key], name) if key in figures else "" for key in keys]
        lines.append(" | ".join([name, *cells]))
    return "\n".join(f"| {line} |" for line in lines) if names else ""


def _caveats(settings: Mapping[str, Any], figures: Mapping[str, float], tags: Mapping[str, str]) -> str:
    """Return how the weights were chosen, on what data, and what is wrong with the figures."""
    epoch = (
        f"Epoch {figures['best/epoch'] + 1:.0f} of {figures.get('final/epochs', 0):.0f}"
        if "best/epoch" in figures
        else "The epoch"
    )
    lines = [
        f"{epoch} was chosen by {settings.get('training.metric')} on these validation clips, so new clips may score lower. "
        f"Data: {settings.get('data.corpus')}, digest {str(tags.get('data.digest', ''))[:12]}; split: {settings.get('data.split.kind')}"
        f"{', fold ' + tags['split.fold_name'] if tags.get('split.fold_name') else ''}; seed {settings.get('seed')}.",
        *(remark + "." for remark in recorded_remarks(tags) if remark),
    ]
    if tags.get("findings") not in (None, "", "none"):
        lines.append(str(tags["findings"]))
    return "\n\n".join(lines)
