"""Passwords in addresses: out of what is shown, recorded or seen in a list of processes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["hide_addresses", "mask"]

# Up to the last @ of the word: a password that was not encoded may hold one itself.
_USER = re.compile(r"://[^\s'\"]*@")
_QUERY = re.compile(r"(?i)\b(password|passwd|sslpassword|token)=[^&\s'\"]*")


def mask(text: str) -> str:
    """`postgresql://me:secret@host/db` becomes `postgresql://***@host/db`; so does a password among a URL's options."""
    return _QUERY.sub(r"\1=***", _USER.sub("://***@", text))


def hide_addresses(words: Sequence[str], variables: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """A command line without the options whose values hold a password, and the environment that says the same.

    Args:
        words: the command line.
        variables: option (`--storage`) to the environment variable that means the same.
    """
    kept: list[str] = []
    environment: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        option, joined, value = word.partition("=")
        if option not in variables:
            kept.append(word)
            continue
        given = [word]
        if not joined:
            value = next(rest, "")
            given.append(value)
        if mask(value) == value:
            kept += given if value or joined else [word]
        else:
            environment[variables[option]] = value
    return kept, environment
