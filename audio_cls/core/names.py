"""The rule for names that become folders, database keys and parts of links: of corpora, studies and suites."""

from __future__ import annotations

import re

from audio_cls.core.errors import UserError

__all__ = ["LONGEST_NAME", "check_name", "is_name"]

LONGEST_NAME = 100  # characters
_NAME = re.compile(rf"[^\W_][\w.+-]{{0,{LONGEST_NAME - 1}}}")


def is_name(text: object) -> bool:
    """Whether a text may name a corpus, a study or a suite."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def check_name(text: object, what: str) -> str:
    """Return a name that may be used.

    Args:
        what: what it names, with its article: "a corpus".

    Raises:
        UserError: for a text that is not 1 to `LONGEST_NAME` letters, digits, dots, underscores, plus signs and hyphens, or
            does not begin with a letter or digit; with the nearest name that may be used.
    """
    if is_name(text):
        return str(text)
    shown = repr(text) if len(str(text)) <= LONGEST_NAME else f"{str(text)[:40]!r}... ({len(str(text))} characters)"
    message = (
        f"{shown} cannot name {what}: use 1 to {LONGEST_NAME} letters, digits, dots, underscores, plus signs or hyphens, "
        "a letter or digit first."
    )
    near = re.sub(r"[^\w.+-]+", "-", str(text))[:LONGEST_NAME].strip("-._+")
    raise UserError(message + (f" Did you mean {near!r}?" if is_name(near) else ""))
