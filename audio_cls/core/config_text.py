"""Read values as they are typed (`--set KEY=VALUE`) by the type of their key, and describe types in words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from audio_cls.core.errors import ConfigError

__all__ = [
    "NONE",
    "Given",
    "number_text",
    "parse_assignment",
    "plain_value",
    "read_value",
    "shorten",
    "type_text",
    "value_text",
    "words_of",
]

NONE = "none"
"""How an absent value is written."""


DEEPEST = 50
"""Text with more brackets is not read as JSON: a nested value that deep is no configuration."""


class Given(str):
    """A value as it was typed: `override` reads it by the type of its key."""

    __slots__ = ()


def parse_assignment(text: str) -> tuple[str, Given]:
    """`"optimizer.lr=1e-3"` -> `("optimizer.lr", Given("1e-3"))`.

    Raises:
        ConfigError: for a text that is no assignment.
    """
    key, sign, raw = text.partition("=")
    key, raw = key.strip(), raw.strip()
    if not sign or not key:
        raise ConfigError(f"--set {shorten(text)}: expected key=value, for example --set optimizer.lr=1e-3")
    return key, Given(raw)


def read_value(text: str, annotation: Any) -> Any:
    """Return a typed value by the type of its field; what does not fit the type is left to validation.

    A word that the type names (`none` among the choices of a key) is that word; otherwise `none` is None. `1,2`, `(1, 2)` and
    `[1, 2]` are tuples, and a single number is a tuple of one. Quotes make text of what would else be a number: `"7"`.
    """
    text, types = str(text), _alternatives(annotation)
    words = words_of(annotation)
    if text in words or (text.lower() == NONE and NONE in words):
        return text if text in words else NONE
    if text.lower() in (NONE, "null") and NoneType in types:
        return None
    for member in types:
        if get_origin(member) is tuple:
            return _read_tuple(text, get_args(member))
    if bool in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if int in types and re.fullmatch(r"[+-]?[0-9]{1,300}", text):
        return int(text)
    if float in types and math.isfinite(number := _number(text)):
        return number
    if str in types:
        return _unquoted(text)
    return plain_value(text)


def plain_value(text: str) -> Any:
    """Return a typed value where no type is known: `none` is None, what parses as JSON is that, all else is text."""
    text = str(text)
    if text.lower() in (NONE, "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return json.loads(text if text.count("[") + text.count("{") <= DEEPEST else "")
    except ValueError:
        number = _number(text)  # "1e-3" and ".5" are no JSON numbers for everybody
        return number if math.isfinite(number) else text


def words_of(annotation: Any) -> list[Any]:
    """Return the values that a type lists (`Literal`)."""
    return [word for t in _alternatives(annotation) if get_origin(t) is Literal for word in get_args(t)]


def _alternatives(annotation: Any) -> list[Any]:
    """Return the members of a union, `Annotated` taken off."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [t for member in get_args(annotation) for t in _alternatives(member)]
    return [annotation]


def _read_tuple(text: str, members: Sequence[Any]) -> Any:
    inside = text
    if len(text) > 1 and text[0] + text[-1] in ("()", "[]"):
        inside = text[1:-1]
    parts = [part.strip() for part in inside.removesuffix(",").split(",")] if inside.strip() else []
    member = members[0] if members else str
    return tuple(
        read_value(part, members[i] if Ellipsis not in members and i < len(members) else member)
        for i, part in enumerate(parts)
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return value if isinstance(value, str) else text
    return text


# -- types and values in words ------------------------------------------------------------------------------------------


def type_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return a type as a user reads it: `int >= 1 or none`, `mean, mean_max`, `int > 0, ...`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(inner[0], [*inner[1:], *metadata])
    if origin in (Union, UnionType):
        return " or ".join(type_text(t, () if t is NoneType else metadata) for t in inner)
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin is tuple and Ellipsis in inner:
        return f"{type_text(inner[0])}, ..."
    if origin is tuple:
        return ", ".join(type_text(t) for t in inner)
    names: dict[Any, str] = {NoneType: NONE, bool: "true, false", str: "text"}
    name = names.get(annotation) or str(getattr(annotation, "__name__", annotation))
    limits = [f"{sign} {number_text(limit)}" for sign, limit in _limits(metadata)]
    return " ".join([name, ", ".join(limits)]) if limits else name


def _limits(metadata: Sequence[Any]) -> list[tuple[str, Any]]:
    metadata = [inner for m in metadata for inner in (getattr(m, "metadata", None) or [m])]  # a Field holds its limits
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return [
        (sign, getattr(m, key)) for m in metadata for key, sign in signs.items() if getattr(m, key, None) is not None
    ]


def number_text(number: Any) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def shorten(value: Any) -> str:
    """Return a value in an error message, at most 80 characters of it."""
    text = repr(str(value) if isinstance(value, Given) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def value_text(value: Any) -> str:
    """Return a value as `--set` takes it."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(map(value_text, value))
    return number_text(value)
