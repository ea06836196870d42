"""Typed, frozen configuration with a `kind`, changed by dotted keys.

A `Component` is a value. It can be printed, hashed (`digest`), stored as JSON (`to_json`), compared (`diff`), flattened to
one row of parameters (`flatten`) and changed by dotted keys (`override`). A *family* is a base class (models, losses, ...)
whose members are distinguished by their `kind`; a user's own file adds a member by subclassing:

    class Tiny(Model, kind="tiny"):
        width: int = 8
        def build(self, input_shape, n_classes): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from audio_cls.core import config_keys
from audio_cls.core.config_keys import Key
from audio_cls.core.config_node import Node, plain
from audio_cls.core.config_text import NONE, parse_assignment, shorten
from audio_cls.core.errors import ConfigError, choices

__all__ = ["NONE", "Component", "ComponentSet", "ConfigError", "parse_assignment"]


class Component(Node):
    """A frozen piece of configuration, changed, compared and listed by dotted keys."""

    _family: ClassVar[type[Component] | None] = None

    def override(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with dotted keys changed.

        `{"optimizer.lr": 1e-3}` changes one value; `{"model.kind": "cnn4"}` or `{"model": "cnn4"}` changes the member of a
        family, whose other keys then start from its defaults; `{"augment.mixup": "none"}` takes a member out of a set and
        `{"augment.mixup.alpha": 0.3}` puts it in. Kinds are changed before the keys below them, in whatever order they come.

        Raises:
            ConfigError: for an unknown key, kind or value, naming the nearest match.
        """
        data = self.to_dict()
        ordered = sorted(
            changes.items(), key=lambda kv: (kv[0].removesuffix(".kind").count("."), not kv[0].endswith(".kind"))
        )
        for key, value in ordered:
            config_keys.assign(type(self), data, key, plain(value))
        return type(self).parse(data)

    def flatten(self) -> dict[str, Any]:
        """Return one flat row. Every value of this class has the same keys, which hold `"none"` where they do not apply; kinds of the
        user's own add theirs to the values that have them, whatever else was loaded."""
        return dict(sorted(config_keys.flatten(type(self), self).items()))

    def diff(self, other: Component) -> dict[str, tuple[Any, Any]]:
        """Return the dotted keys in which two values differ, with (ours, theirs)."""
        a, b = self.flatten(), other.flatten()
        return {
            k: (a.get(k, NONE), b.get(k, NONE)) for k in sorted(a.keys() | b.keys()) if a.get(k, NONE) != b.get(k, NONE)
        }

    def keys(self) -> list[str]:
        """Return every dotted key that can be overridden, over all kinds."""
        return sorted(config_keys.flatten(type(self), self, own=True))

    @classmethod
    def catalogue(cls, prefix: str = "") -> list[Key]:
        """Return every key over all kinds, with its default, what it takes and what it is."""
        return config_keys.catalogue(cls, prefix)


class ComponentSet(Component):
    """A set of members of one family, each at most once, known by kind: `{"mixup": {"alpha": 0.3}, "specaugment": {}}`.

    A subclass names the family: `class Augment(ComponentSet): of = Augmentation`. Members stand in `items`, in a canonical
    order (the member's `order`, then its kind), so that equal sets have equal digests.
    """

    of: ClassVar[type[Component]]
    items: tuple[Component, ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _collect(cls, value: Any, handler: Any) -> Any:
        if isinstance(value, cls):
            return value
        if value is None or value == NONE:
            value = {}
        if isinstance(value, Mapping) and set(value) != {"items"}:
            members = []
            for kind, fields in value.items():
                if kind not in cls.of.members():
                    raise PydanticCustomError(
                        "unknown_kind",
                        "{kind} is no {family}. {allowed}",
                        {
                            "kind": shorten(kind),
                            "family": cls.of.__name__.lower(),
                            "allowed": choices(kind, cls.of.members()),
                            "name": str(kind),
                        },
                    )
                if fields is None or fields == NONE:
                    continue
                fields = {} if fields == "on" else fields
                members.append(
                    fields if isinstance(fields, Component) else _member(cls.of.members()[kind], kind, fields)
                )
            value = {"items": tuple(members)}
        elif not isinstance(value, Mapping) and isinstance(value, Iterable):
            value = {"items": tuple(value)}
        items = value.get("items", ()) if isinstance(value, Mapping) else ()
        for item in items:
            if not isinstance(item, cls.of):
                raise PydanticCustomError(
                    "not_a_member", "{item} is no {family}", {"item": repr(item), "family": cls.of.__name__}
                )
        kinds = [item.kind for item in items]
        if len(set(kinds)) < len(kinds):
            raise PydanticCustomError("twice", "each kind at most once, found {kinds}", {"kinds": ", ".join(kinds)})
        return handler({"items": tuple(sorted(items, key=lambda i: (getattr(i, "order", 0), i.kind)))})

    def to_dict(self, *, for_digest: bool = False) -> dict[str, Any]:
        found = {item.kind: item.to_dict(for_digest=for_digest) for item in self.items}
        return {kind: {k: v for k, v in fields.items() if k != "kind"} for kind, fields in found.items()}

    def __getitem__(self, kind: str) -> Component | None:
        return next((item for item in self.items if item.kind == kind), None)

    def __contains__(self, kind: object) -> bool:
        return any(item.kind == kind for item in self.items)


def _member(cls: type[Component], kind: str, fields: Any) -> Component:
    """Validate a member of a set; its faults are placed below its kind."""
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        faults: list[InitErrorDetails] = [
            {
                "type": PydanticCustomError(fault["type"], "{message}", {"message": fault["msg"]}),
                "loc": (kind, *fault["loc"]),
                "input": fault["input"],
            }
            for fault in error.errors()
        ]
        raise ValidationError.from_exception_data(cls.__name__, faults) from None
