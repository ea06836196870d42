"""Keep passwords in addresses out of output, records and the list of processes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["encode_user", "hide_addresses", "mask", "mask_address"]

# Up to the last @ of the word: a password that was not encoded may hold one itself.
_USER = re.compile(r"://[^\s'\"]*@")
_ADDRESS_USER = re.compile(r"(?s)://.*@")
_QUERY = re.compile(r"(?i)\b(password|passwd|sslpassword|token)=[^&\s'\"]*")


def mask(text: str) -> str:
    """`postgresql://me:secret@host/db` becomes `postgresql://***@host/db`; so does a password among a URL's options."""
    return _QUERY.sub(r"\1=***", _USER.sub("://***@", text))


def mask_address(address: str) -> str:
    """Mask one address, or one word of a command line, in which everything up to the last @ is the user's: quotes and spaces too."""
    return mask(_ADDRESS_USER.sub("://***@", address))


def encode_user(address: str) -> str:
    """Percent-encode each @ in the user and the password of an address but the last, which ends them.

    Without it, `postgresql://me:p@ss@host/db` is read as the host `ss@host`, which errors then show.
    """
    scheme, sign, rest = address.partition("://")
    head, question, query = rest.partition("?")
    user, at, place = head.rpartition("@")
    return f"{scheme}{sign}{user.replace('@', '%40')}{at}{place}{question}{query}"


def hide_addresses(words: Sequence[str], variables: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return a command line without the options whose values hold a password, and the environment that says the same.

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
        if mask_address(value) == value:
            kept += given if value or joined else [word]
        else:
            environment[variables[option]] = value
    return kept, environment
