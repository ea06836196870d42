"""Descriptions that MLflow's UI shows: of an experiment, above its runs (the data, what the runs are, links to the views); of a run.

A description that somebody has edited stays as it is: the tag `mlflow.audio_cls.note` holds the digest of what was written last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from audio_cls.tracking.outbox import Operation
from audio_cls.tracking.views import view_links_of

__all__ = ["NOTE", "experiment_note", "note_tags", "renew_note", "renewed_note"]

NOTE = "mlflow.note.content"
_DIGEST = "mlflow.audio_cls.note"  # its prefix keeps it out of the lists of tags
_LIMIT = 5000
_EARLIER = "Audio classification on **"  # how the descriptions of earlier versions begin, which had no digest
_VIEWS = "\n\n**Views:** "
_KINDS = (
    "A run is a *study* (with its trials below it), a *suite* (with its arms, and their runs, below it), a *cross-validation*, "
    "a *confirmation* or a single *run*: the tag `kind` says which. The tag `state` says how it ended: COMPLETE, PRUNED (stopped "
    "early by the search, no fault), INTERRUPTED, or FAILED for the `reason` given. `audio-cls ui` has a start page with all of it."
)


def experiment_note(dataset: Operation) -> str:
    """Return the description of the experiment on a data set (see `DatasetInfo.operation`), in Markdown, without links."""
    profile = json.loads(dataset["profile"])
    classes = [str(c) for c in profile["classes"]]
    listed = ", ".join(classes[:30]) + (f" and {len(classes) - 30} more" if len(classes) > 30 else "")
    task = "several labels a clip" if profile["task"] == "multilabel" else "one label a clip"
    return (
        f"Audio classification on **{dataset['name']}**: {profile['n_clips']:,} clips, {len(classes)} classes ({listed}), {task}; "
        f"data digest {dataset['digest'][:12]}.\n\n{_KINDS}"
    )


def note_tags(note: str) -> dict[str, str]:
    """Return the tags that give an experiment its description."""
    note = note[:_LIMIT]
    return {NOTE: note, _DIGEST: _digest(note)} if note else {}


def renewed_note(note: str, present: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that give a run its description; empty where somebody has edited the one that it has.

    Args:
        present: the run's tags.
    """
    return note_tags(note) if NOTE not in present or _is_ours(present) else {}


def renew_note(client: Any, experiment_id: str) -> None:
    """Put the links of the experiment's views into its description, unless somebody has edited it."""
    experiment = client.get_experiment(experiment_id)
    note = experiment.tags.get(NOTE, "")
    if not note or not _is_ours(experiment.tags):
        return
    links = [f"[{name}]({link.lstrip('/')})" for name, link in view_links_of(experiment, "").items()]
    text = note.partition(_VIEWS)[0]
    while links and len(text + _VIEWS + " · ".join(links)) > _LIMIT:  # the newest are last
        links.pop(0)
    wanted = text + (_VIEWS + " · ".join(links) if links else "")
    if wanted == note:
        return
    for key, value in note_tags(wanted).items():
        client.set_experiment_tag(experiment_id, key, value)


def _is_ours(tags: Mapping[str, str]) -> bool:
    note = tags[NOTE]
    if _DIGEST in tags:
        return tags[_DIGEST] == _digest(note)
    return note.startswith(_EARLIER) and note.endswith("classes).")


def _digest(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()[:16]
