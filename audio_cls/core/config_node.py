"""The base of configuration values, without dotted keys: fields, families and kinds, JSON, digest, errors."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from audio_cls.core.config_text import shorten
from audio_cls.core.errors import ConfigError, choices
from audio_cls.core.field_docs import declaration_place

__all__ = ["Node", "plain"]

UNION_TAG = re.compile(r"(constrained-)?(int|float|str|bool|none)$|(tuple|function|literal|nullable)\b")
"""How pydantic marks the alternatives of a union at the end of a place."""


class Node(BaseModel):
    """A frozen piece of configuration that knows its kind. Unknown keys and values of a wrong type are refused.

    Use `config.Component`, which can be changed by dotted keys as well.
    """

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
    )

    kind: ClassVar[str] = ""
    added_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that joined a class after experiments had been recorded, those of its base classes included. `to_dict` leaves them out
    at their defaults, so that the digests of those experiments stay as they were."""
    of: ClassVar[type[Node] | None] = None
    """The family whose members a set holds (`ComponentSet`); None for what is no set."""
    _family: ClassVar[type[Node] | None] = None
    _members: ClassVar[dict[str, type[Node]]] = {}
    _declared_at: ClassVar[tuple[str, int] | None] = None

    def __init_subclass__(cls, *, family: bool = False, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._declared_at = declaration_place(cls)

    @classmethod
    def __pydantic_init_subclass__(cls, *, family: bool = False, kind: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.added_fields = frozenset().union(*(vars(base).get("added_fields", ()) for base in cls.__mro__))
        if family:
            cls._family, cls._members = cls, {}
        elif kind:
            if cls._family is None:
                raise TypeError(f"{cls.__name__} gives the kind {kind!r} but is in no family")
            _check_complete(cls)
            known = cls._members.get(kind)
            if known is not None and not _same_class(known, cls):
                raise ConfigError(
                    f"the kind {kind!r} is taken: {known.__module__}.{known.__qualname__} and "
                    f"{cls.__module__}.{cls.__qualname__} both claim it in {cls._family.__name__}"
                )
            cls.kind = kind
            cls._members[kind] = cls

    # -- families -----------------------------------------------------------------------------------------------

    @classmethod
    def members(cls) -> dict[str, type[Self]]:
        """Return the kinds of this family, by name, in order of their names."""
        return cast("dict[str, type[Self]]", dict(sorted(cls._members.items())) if cls._family is not None else {})

    @classmethod
    def is_family(cls) -> bool:
        return cls._family is cls

    @classmethod
    def is_built_in(cls) -> bool:
        """Whether a member comes with its family, and is not a user's own."""
        family = cls._family or cls
        return cls.__module__.partition(".")[0] == family.__module__.partition(".")[0]

    @classmethod
    def summary(cls) -> str:
        """Return the first paragraph of the docstring on one line: what the list of keys says of a member of a family."""
        text = (inspect.getdoc(cls) if cls.__doc__ else None) or ""
        return " ".join(text.partition("\n\n")[0].split())

    @model_validator(mode="wrap")
    @classmethod
    def _by_kind(cls, value: Any, handler: Any) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and cls._family is not None:
            value = {"kind": value}
        if not isinstance(value, Mapping):
            return handler(value)
        value = {str(k): _tuples(v) for k, v in value.items()}
        for key, text in value.items():
            if isinstance(text, str) and not _encodable(text):
                raise PydanticCustomError(
                    "not_text", "{key} is no UTF-8 text: {text}", {"key": key, "text": repr(text)[:80]}
                )
        if cls.is_family():
            kind = value.get("kind")
            if kind is None:
                raise PydanticCustomError(
                    "unknown_kind",
                    "the key 'kind' is missing. Allowed: {allowed}",
                    {"allowed": ", ".join(cls.members())},
                )
            if not isinstance(kind, str) or kind not in cls._members:
                raise PydanticCustomError(
                    "unknown_kind",
                    "{kind} is no {family}. {allowed}",
                    {
                        "kind": shorten(kind),
                        "family": cls.__name__.lower(),
                        "allowed": choices(str(kind), cls._members),
                        "name": str(kind),
                    },
                )
            return cls._members[kind].model_validate(value)
        if cls.kind:
            kind = value.pop("kind", cls.kind)
            if kind != cls.kind:
                raise PydanticCustomError(
                    "wrong_kind", "expected the kind {a}, found {b}", {"a": cls.kind, "b": str(kind)}
                )
        for key in value:
            if key not in cls.model_fields and cls.of is None:
                raise PydanticCustomError(
                    "unknown_key",
                    "{owner} has no key {key}. {allowed}",
                    {"owner": cls.kind or cls.__name__, "key": repr(key), "allowed": choices(key, cls.model_fields)},
                )
        return handler(value)

    # -- a value ------------------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, data: Any, where: str = "") -> Self:
        """Build from a plain dictionary (or an instance); raises `ConfigError` that lists every fault with its dotted key."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(_explain(error, where or cls.__name__.lower()), _unknown_kinds(error)) from None

    @classmethod
    def from_json(cls, text: str, where: str = "") -> Self:
        """Build from JSON text as `to_json` writes it."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:  # also a number of 5,000 digits
            raise ConfigError(f"{where or cls.__name__.lower()}: not JSON: {error}") from None
        return cls.parse(data, where)

    def to_dict(self, *, for_digest: bool = False) -> dict[str, Any]:
        """Plain dictionaries, lists, strings, numbers, booleans and None; `parse` takes it back.

        Args:
            for_digest: without what `left_out_of_digest` names.
        """
        out: dict[str, Any] = {"kind": self.kind} if self.kind else {}
        hidden = self.left_out_of_digest() if for_digest else frozenset()
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name not in hidden and (name not in self.added_fields or value != field.default):
                out[name] = plain(value, for_digest)
        return out

    def left_out_of_digest(self) -> frozenset[str]:
        """Return the fields that do not change what a value means: where a file lies whose hash is another field, say."""
        return frozenset()

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def digest(self) -> str:
        """Return SHA-256 (hex) of the canonical JSON: equal values have equal digests, on any machine."""
        text = json.dumps(self.to_dict(for_digest=True), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(value: Any, for_digest: bool = False) -> Any:
    """Return a value as dictionaries, lists, strings, numbers, booleans and None; see `Node.to_dict`."""
    if isinstance(value, Node):
        return value.to_dict(for_digest=for_digest)
    if isinstance(value, Mapping):
        return {str(k): plain(v, for_digest) for k, v in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(v, for_digest) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _explain(error: ValidationError, where: str) -> str:
    """Return a line for each fault: dotted key, what is wrong, what was found. The alternatives of a union are one
    fault.
    """
    lines: dict[str, str] = {}
    faults = error.errors()
    for fault in faults:
        if fault["type"] == "too_short" and any(fault["loc"] == other["loc"][:-1] for other in faults):
            continue  # values that are refused each for itself do not count
        place = [str(part) for part in fault["loc"]]
        if place and UNION_TAG.match(place[-1]):
            place.pop()
        key, found = ".".join(place), fault.get("input")
        said = fault["type"] in ("not_text", "unknown_key", "unknown_kind", "wrong_kind", "twice") or isinstance(
            found, Node
        )
        message = fault["msg"].removeprefix("Value error, ") + ("" if said else f", found {shorten(found)}")
        line = f"{where}{'.' if key else ''}{key}: {message}"
        lines[key] = (
            f"{lines[key]}\n{line}" if key in lines and len(place) == len(fault["loc"]) else lines.get(key, line)
        )
    return "\n".join(lines.values())


def _unknown_kinds(error: ValidationError) -> list[tuple[str, str]]:
    """(family, kind) of each kind that nothing has declared."""
    found = [fault.get("ctx", {}) for fault in error.errors() if fault["type"] == "unknown_kind"]
    return [(ctx["family"], ctx["name"]) for ctx in found if "name" in ctx]


def _check_complete(cls: type[Node]) -> None:
    """Refuse a member of a family that lacks one of the methods that its family requires."""
    for name in sorted(cls.__abstractmethods__):
        method = getattr(cls, name)
        words = ", ".join(list(inspect.signature(method).parameters)[1:])
        family = cls._family.__name__ if cls._family else "its family"
        raise ConfigError(f"{cls.__name__}.{name}({words}) is missing: every {family} defines it")


def _same_class(a: type[Node], b: type[Node]) -> bool:
    """Whether two classes are the same definition, executed twice: a notebook's cell, or a file imported under two names."""
    if a.__qualname__ != b.__qualname__:
        return False
    files = [getattr(sys.modules.get(c.__module__), "__file__", None) for c in (a, b)]
    return a.__module__ == b.__module__ or (files[0] is not None and files[0] == files[1])
