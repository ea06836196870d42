"""The ground floor: typed, frozen configuration that is known by its kind and changed by dotted keys.

A `Component` is a value. It can be printed, hashed (`digest`), stored as JSON (`to_json`), compared (`diff`), flattened to
one row of parameters (`flatten`) and changed by dotted keys (`override`). A *family* is a base class (models, losses, ...)
whose members are told apart by their `kind`; a user's own file adds a member by subclassing:

    class Tiny(Model, kind="tiny"):
        width: int = 8
        def build(self, input_shape, n_classes): ...
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from audio_cls.errors import UserError, choices, did_you_mean

__all__ = ["NONE", "Component", "ComponentSet", "ConfigError", "parse_assignment"]

NONE = "none"  # how an absent value is written in a flat row: a value, never a missing key


class ConfigError(UserError):
    """A configuration that does not hold: names the key, what was found and what is allowed.

    `unknown` lists the unknown kinds as (family, kind), for example ("model", "tiny"): a file of the user's may declare them.
    """

    def __init__(self, message: str, unknown: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.unknown = tuple(unknown)


class Component(BaseModel):
    """A frozen piece of configuration. Unknown keys and values of a wrong type are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    kind: ClassVar[str] = ""
    _family: ClassVar[type[Component] | None] = None
    _members: ClassVar[dict[str, type[Component]]] = {}

    def __init_subclass__(cls, *, family: bool = False, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, family: bool = False, kind: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
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
    def members(cls) -> dict[str, type[Component]]:
        """The kinds of this family, by name, in order of their names."""
        return dict(sorted(cls._members.items())) if cls._family is not None else {}

    @classmethod
    def is_family(cls) -> bool:
        return cls._family is cls

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
                        "kind": repr(kind),
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
            if key not in cls.model_fields and not issubclass(cls, ComponentSet):
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

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings, numbers, booleans and None; `parse` takes it back."""
        out: dict[str, Any] = {"kind": self.kind} if self.kind else {}
        for name in type(self).model_fields:
            out[name] = _plain(getattr(self, name))
        return out

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON: equal values have equal digests, on any machine."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def override(self, changes: Mapping[str, Any]) -> Self:
        """A copy with dotted keys changed.

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
            _assign(type(self), data, key, _plain(value))
        return type(self).parse(data)

    def flatten(self) -> dict[str, Any]:
        """One flat row, the same keys for every value of this class: keys that do not apply hold `"none"`."""
        return dict(sorted(_flatten(type(self), self, "").items()))

    def diff(self, other: Component) -> dict[str, tuple[Any, Any]]:
        """The dotted keys in which two values differ, with (ours, theirs)."""
        a, b = self.flatten(), other.flatten()
        return {
            k: (a.get(k, NONE), b.get(k, NONE)) for k in sorted(a.keys() | b.keys()) if a.get(k, NONE) != b.get(k, NONE)
        }

    def keys(self) -> list[str]:
        """Every dotted key that can be overridden, over all kinds."""
        return sorted(_flatten(type(self), self, ""))

    @classmethod
    def catalogue(cls, prefix: str = "") -> list[tuple[str, str, Any, str]]:
        """Every key over all kinds: (dotted key, kind it belongs to or "", default, type or allowed kinds)."""
        rows: list[tuple[str, str, Any, str]] = []
        for name, field in cls.model_fields.items():
            child = _component_of(cls, name)
            if child is None:
                default = NONE if field.default is None else field.default
                shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
                rows.append((f"{prefix}{name}", cls.kind, shown, _type_words(field.annotation)))
            elif issubclass(child, ComponentSet):
                for kind, member in child.of.members().items():
                    rows.append((f"{prefix}{name}.{kind}", "", NONE, "on, none"))
                    rows += member.catalogue(f"{prefix}{name}.{kind}.")
            elif child.is_family():
                default = field.default.kind if isinstance(field.default, Component) else ""
                rows.append((f"{prefix}{name}.kind", "", default, ", ".join(child.members())))
                for member in child.members().values():
                    rows += member.catalogue(f"{prefix}{name}.")
            else:
                rows += child.catalogue(f"{prefix}{name}.")
        return rows


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
                            "kind": repr(kind),
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

    def to_dict(self) -> dict[str, Any]:
        return {item.kind: {k: v for k, v in item.to_dict().items() if k != "kind"} for item in self.items}

    def __getitem__(self, kind: str) -> Component | None:
        return next((item for item in self.items if item.kind == kind), None)

    def __contains__(self, kind: object) -> bool:
        return any(item.kind == kind for item in self.items)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`"optimizer.lr=1e-3"` -> `("optimizer.lr", 0.001)`. The value is JSON where it parses, `none` is None, else text."""
    key, sign, raw = text.partition("=")
    key, raw = key.strip(), raw.strip()
    if not sign or not key:
        raise ConfigError(f"--set {text!r}: expected key=value, for example --set optimizer.lr=1e-3")
    if raw.lower() in ("none", "null"):
        return key, None
    if raw.lower() in ("true", "false"):
        return key, raw.lower() == "true"
    try:
        value = json.loads(raw)
    except json.JSONDecodeError:
        try:
            value = float(raw)  # "1e-3" and ".5" are no JSON numbers for everybody
            if not math.isfinite(value):
                value = raw
        except ValueError:
            value = raw
    return key, value


# -- the parts of the above ---------------------------------------------------------------------------------------


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


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(v) for v in value]
    return value.item() if hasattr(value, "item") and not isinstance(value, (str, bytes)) else value


def _type_words(annotation: Any) -> str:
    """A type as a user reads it: `float, none`, `mean, mean_max`, `[int, ...]`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return NONE
    if origin is Annotated:
        return _type_words(inner[0])
    if origin is Literal:
        return ", ".join(map(str, inner))
    if origin is tuple:
        return "[" + ", ".join("..." if a is Ellipsis else _type_words(a) for a in inner) + "]"
    if inner:  # a union
        return ", ".join(_type_words(a) for a in inner)
    return getattr(annotation, "__name__", str(annotation))


def _component_of(cls: type[Component], name: str) -> type[Component] | None:
    annotation = cls.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Component) else None


def _explain(error: ValidationError, where: str) -> str:
    lines = []
    for fault in error.errors():
        key = ".".join(str(p) for p in fault["loc"])
        found = fault.get("input")
        tail = "" if fault["type"] in ("unknown_key", "unknown_kind", "wrong_kind", "twice") else f", found {found!r}"
        if isinstance(found, Component):
            tail = ""
        message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{where}{'.' if key else ''}{key}: {message}{tail}")
    return "\n".join(lines)


def _unknown_kinds(error: ValidationError) -> list[tuple[str, str]]:
    """(family, kind) of each kind that nothing has declared."""
    found = [fault.get("ctx", {}) for fault in error.errors() if fault["type"] == "unknown_kind"]
    return [(ctx["family"], ctx["name"]) for ctx in found if "name" in ctx]


def _check_complete(cls: type[Component]) -> None:
    """Refuse a member of a family that lacks one of the methods that its family requires."""
    for name in sorted(cls.__abstractmethods__):
        method = getattr(cls, name)
        words = ", ".join(list(inspect.signature(method).parameters)[1:])
        family = cls._family.__name__ if cls._family else "its family"
        raise ConfigError(f"{cls.__name__}.{name}({words}) is missing: every {family} defines it")


def _same_class(a: type[Component], b: type[Component]) -> bool:
    """Whether two classes are the same definition, executed twice: a notebook's cell, or a file imported under two names."""
    if a.__qualname__ != b.__qualname__:
        return False
    files = [getattr(sys.modules.get(c.__module__), "__file__", None) for c in (a, b)]
    return a.__module__ == b.__module__ or (files[0] is not None and files[0] == files[1])


def _assign(cls: type[Component], data: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key in the plain form of a `cls`, checking each part of the way."""
    owner: type[Component] = cls
    node = data
    parts = key.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if issubclass(owner, ComponentSet):
            members = owner.of.members()
            if part not in members:
                family = owner.of.__name__.lower()
                raise ConfigError(f"{key}: {part!r} is no {family}. {choices(part, members)}", [(family, part)])
            if last:
                if value is None or value == NONE:
                    node.pop(part, None)
                else:
                    node[part] = {} if value in ("on", True) else value
                return
            owner, node = members[part], node.setdefault(part, {})
            continue
        if part == "kind" and last and owner._family is not None:
            return  # done when the parent was visited (see below)
        if part not in owner.model_fields:
            allowed = cls.model_validate({}).keys() if _buildable(cls) else list(owner.model_fields)
            raise ConfigError(
                f"no key {key!r}: {owner.kind or owner.__name__} has no {part!r}. "
                f"It has: {', '.join(sorted(owner.model_fields))}.{did_you_mean(key, allowed)}"
            )
        child = _component_of(owner, part)
        if child is None:
            if not last:
                raise ConfigError(f"no key {key!r}: {'.'.join(parts[: depth + 1])!r} is a value, nothing lies below it")
            node[part] = value
            return
        if child._family is not None:
            kind = value if last and isinstance(value, str) else None
            if not last and parts[depth + 1] == "kind" and depth + 2 == len(parts):
                kind = value
            if kind is not None:
                if kind not in child.members():
                    family = child._family.__name__.lower()
                    raise ConfigError(
                        f"{key}: {kind!r} is no {family}. {choices(str(kind), child.members())}", [(family, str(kind))]
                    )
                if node[part].get("kind") != kind:
                    node[part] = {"kind": kind}
                return
        if last:
            node[part] = value
            return
        owner = child.members()[node[part]["kind"]] if child._family is not None else child
        node = node[part]


def _buildable(cls: type[Component]) -> bool:
    return all(not field.is_required() for field in cls.model_fields.values())


def _flatten(cls: type[Component], value: Component | None, prefix: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if issubclass(cls, ComponentSet):
        for kind, member in cls.of.members().items():
            item = value[kind] if isinstance(value, ComponentSet) else None
            out[f"{prefix}{kind}"] = NONE if item is None else "on"
            out.update(
                {k: v for k, v in _flatten(member, item, f"{prefix}{kind}.").items() if k != f"{prefix}{kind}.kind"}
            )
        return out
    if cls.is_family():
        out[f"{prefix}kind"] = value.kind if value is not None else NONE
        for kind, member in cls.members().items():
            mine = value if value is not None and value.kind == kind else None
            for key, v in _flatten(member, mine, prefix).items():
                if key != f"{prefix}kind" and (mine is not None or key not in out):
                    out[key] = v
        return out
    for name in cls.model_fields:
        child = _component_of(cls, name)
        mine = getattr(value, name) if value is not None else None
        if child is not None:
            out.update(_flatten(child, mine, f"{prefix}{name}."))
        elif mine is None:
            out[f"{prefix}{name}"] = NONE
        else:
            out[f"{prefix}{name}"] = list(mine) if isinstance(mine, tuple) else mine
    return out
