"""Errors that a user can fix, and how their messages are built."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["ConfigError", "RunFailed", "UserError", "choices", "choose", "did_you_mean", "first_fault"]

T = TypeVar("T")


class UserError(Exception):
    """Something the user asked for cannot be done: the message says what, where, what is allowed and what was perhaps meant.

    The command line prints the message alone and ends with exit code 2.
    """


class ConfigError(UserError):
    """A configuration that does not hold: names the key, what was found and what is allowed.

    `unknown` lists the unknown kinds as (family, kind), for example ("model", "tiny"): a file of the user's may declare them.
    """

    def __init__(self, message: str, unknown: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.unknown = tuple(unknown)


class RunFailed(UserError):
    """Training failed and was recorded as FAILED. `reason` is `kind: details` (`diverged: ...`, `oom`), `run_id` its run in MLflow."""

    def __init__(self, message: str, reason: str = "", run_id: str = "") -> None:
        super().__init__(message)
        self.reason, self.run_id = reason, run_id


def did_you_mean(asked: str, allowed: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` with the nearest allowed word, or an empty string when nothing is near."""
    allowed = list(allowed)
    near = difflib.get_close_matches(asked, allowed, n=1, cutoff=0.5)
    if not near:  # a dotted key's last part, or a part of a word
        near = [a for a in allowed if a.rsplit(".", 1)[-1] == asked.rsplit(".", 1)[-1]][:1]
    return f" Did you mean {near[0]!r}?" if near else ""


def choices(asked: str, allowed: Iterable[str]) -> str:
    """Return the tail of an error message: what is allowed, then the nearest match."""
    allowed = sorted(allowed)
    listed = ", ".join(allowed) if allowed else "nothing"
    return f"Allowed: {listed}.{did_you_mean(asked, allowed)}"


def choose(found: Mapping[str, T], name: str, what: str) -> T:
    """Return the member of that name.

    Args:
        what: what was asked for, in words.

    Raises:
        UserError: if there is none, with what is allowed and the nearest match.
    """
    if name not in found:
        raise UserError(f"no {what}. {choices(name, found)}")
    return found[name]


def first_fault(error: ValidationError) -> str:
    """Return where the first fault of a file's content stands and what it is: "KEY: what is wrong"."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    return f"{key}{': ' if key else ''}{fault['msg']}"
