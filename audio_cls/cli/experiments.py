"""Commands on single experiments and runs: keys, train, evaluate, predict, compare, report."""

from __future__ import annotations

import textwrap

import click

from audio_cls.cli.console import say
from audio_cls.core.errors import UserError, did_you_mean


@click.command("keys")
@click.argument("prefix", default="")
def keys(prefix: str) -> None:
    """The keys of an experiment: default, what each takes, what it is. PREFIX narrows them (optimizer, augment.mixup, ...).

    Below the kind of a part stands a row for each of its kinds. In a pipe a line for each key, with tabs between key, kinds, default, what it takes, and what it is."""
    from audio_cls.cli.console import console
    from audio_cls.core.config_keys import merged
    from audio_cls.experiment import Experiment

    everything = merged(Experiment.catalogue())
    found = [key for key in everything if key.key.startswith(prefix)]
    if not found:
        raise UserError(f"no key begins with {prefix!r}.{did_you_mean(prefix, [key.key for key in everything])}")
    terminal = console()
    if not terminal.is_terminal:
        say("\n".join("\t".join(key) for key in found))
        return
    for key in found:
        of = f"; {key.kind}" if key.kind else ""
        takes = "" if key.default == key.kind else f"  ({key.allowed}{of})"  # a member of a family takes nothing
        say(_folded(f"{key.key}={key.default}{takes}", terminal.width, "", " " * 8))
        if key.description:
            say(_folded(key.description, terminal.width, " " * 4, " " * 4))


def _folded(text: str, width: int, first: str, later: str) -> str:
    """Text in lines of a width, broken between words only."""
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False)  # fmt: skip
