"""What several commands print."""

from __future__ import annotations

from audio_cls.cli.console import say
from audio_cls.data.corpus import Corpus
from audio_cls.runs.resolve import Resolved, hand_set_faults

__all__ = ["say_resolved"]


def say_resolved(resolved: Resolved, corpus: Corpus) -> None:
    """Print what was chosen from the data, and what is set by hand against it: once, by the command that the user started."""
    if resolved.choices:
        say("from the data:\n  " + "\n  ".join(resolved.lines()))
    for line in hand_set_faults(resolved, corpus):
        say(f"warning: {line}", err=True)
