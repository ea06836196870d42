"""The dotted keys of a component: set in its plain form, flattened into a row, listed with what each of them takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from audio_cls.core.config_node import Node
from audio_cls.core.config_text import NONE, Given, plain_value, read_value, shorten, type_text, value_text, words_of
from audio_cls.core.errors import ConfigError, choices, did_you_mean
from audio_cls.core.field_docs import field_docs

__all__ = ["Key", "assign", "catalogue", "component_of", "flatten", "merged"]


class Key(NamedTuple):
    """A dotted key. kind: that it belongs to, "" for all. default, allowed: as `--set` takes them, and in words."""

    key: str
    kind: str
    default: str
    allowed: str
    description: str


def component_of(cls: type[Node], name: str) -> type[Node] | None:
    """Return the class of a field that holds a component; None for a plain value."""
    annotation = cls.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Node) else None


# -- setting a key ------------------------------------------------------------------------------------------------------


def assign(cls: type[Node], data: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key in the plain form of a `cls`, checking each part of the way.

    Raises:
        ConfigError: for a key, kind or member that is not there.
    """
    owner: type[Node] = cls
    node = data
    parts = key.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if owner.of is not None:
            owner_or_none = _assign_member(owner.of, node, key, part, value, last)
            if owner_or_none is None:
                return
            owner, node = owner_or_none, node[part]
            continue
        if part == "kind" and last and owner._family is not None:
            return  # set when the parent was visited (see below)
        if part not in owner.model_fields:
            raise _no_key(cls, owner, parts, depth)
        child = component_of(owner, part)
        if child is None:
            if not last:
                raise ConfigError(f"no key {key!r}: {'.'.join(parts[: depth + 1])!r} is a value, nothing lies below it")
            annotation = owner.model_fields[part].annotation
            node[part] = read_value(value, annotation) if isinstance(value, Given) else _by_type(value, annotation)
            return
        if part in owner.added_fields:  # `to_dict` leaves it out at its default
            node.setdefault(part, owner.model_fields[part].default.to_dict())
        if child._family is not None:
            kind = _kind_asked(child, parts[depth + 1 :], value)
            if kind is not None:
                if kind not in child.members():
                    family = child._family.__name__.lower()
                    raise ConfigError(
                        f"{key}: {shorten(kind)} is no {family}. {choices(str(kind), child.members())}",
                        [(family, str(kind))],
                    )
                if node[part].get("kind") != kind:
                    node[part] = {"kind": kind}
                return
        if last:
            node[part] = _component_value(child, key, value)
            return
        owner = child.members()[node[part]["kind"]] if child._family is not None else child
        node = node[part]


def _no_key(cls: type[Node], owner: type[Node], parts: list[str], depth: int) -> ConfigError:
    key, part = ".".join(parts), parts[depth]
    buildable = all(not field.is_required() for field in cls.model_fields.values())
    allowed = sorted(flatten(cls, cls.model_validate({}), own=True)) if buildable else list(owner.model_fields)
    fields = sorted(owner.model_fields)
    family: dict[str, type[Node]] = owner._members if owner._family is not None else {}
    elsewhere = sorted(kind for kind, member in family.items() if part in member.model_fields and kind != owner.kind)
    if elsewhere:
        kind = ".".join([*parts[:depth], "kind"])
        return ConfigError(
            f"{key}: {kind} is {owner.kind}, which has no {part!r}; {', '.join(elsewhere)} {'has' if len(elsewhere) == 1 else 'have'} it: set {kind}={elsewhere[0]} as well"
        )
    return ConfigError(
        f"no key {shorten(key)}: {owner.kind or owner.__name__} has no {shorten(part)}. "
        f"It has: {', '.join(fields) or 'no keys'}.{did_you_mean(key[:200], allowed)}"
    )


def _assign_member(
    of: type[Node], node: dict[str, Any], key: str, part: str, value: Any, last: bool
) -> type[Node] | None:
    """Put a member into a set or take it out; on the way to one of its keys, its class."""
    members = of.members()
    if part not in members:
        family = of.__name__.lower()
        raise ConfigError(f"{shorten(key)}: {shorten(part)} is no {family}. {choices(part, members)}", [(family, part)])
    if not last:
        node.setdefault(part, {})
        return members[part]
    value = plain_value(value) if isinstance(value, Given) else value
    if value is None or value == NONE or value is False:
        node.pop(part, None)
    elif value is True or value == "on":
        node.setdefault(part, {})
    elif isinstance(value, dict):
        node[part] = value
    else:
        raise ConfigError(
            f"{key}: expected on, none, or keys below it such as {key}.{_first_key(members[part])}, found {shorten(value)}"
        )
    return None


def _first_key(member: type[Node]) -> str:
    return next(iter(member.model_fields), "...")


def _kind_asked(family: type[Node], rest: list[str], value: Any) -> Any:
    """Return the kind that `model=cnn4` or `model.kind=cnn4` asks for; None if something else is set."""
    if not rest and value is None and NONE in family.members():
        return NONE
    if rest == ["kind"] or (not rest and isinstance(value, str) and not value.lstrip().startswith("{")):
        return str(value) if isinstance(value, Given) else value
    return None


def _component_value(child: type[Node], key: str, value: Any) -> dict[str, Any]:
    """Return the plain form of a whole component, given as a dictionary (or JSON)."""
    value = plain_value(value) if isinstance(value, Given) else value
    if child.of is not None and (value is None or value == NONE):
        return {}
    if child.of is not None and isinstance(value, list):
        return child.parse(value, key).to_dict()
    if not isinstance(value, dict):
        below = ", ".join(
            f"{key}.{name}" for name in list(child.of.members() if child.of is not None else child.model_fields)[:3]
        )
        raise ConfigError(f"{key}: set the keys below it, such as {below}; found {shorten(value)}")
    return child.parse(value, key).to_dict()


def _by_type(value: Any, annotation: Any) -> Any:
    """Return a value from Python: None is the choice `none` where a key has one."""
    return NONE if value is None and NONE in words_of(annotation) else value


# -- flat rows ----------------------------------------------------------------------------------------------------------


def flatten(cls: type[Node], value: Node | None, prefix: str = "", *, own: bool = False) -> dict[str, Any]:
    """Return every key -> its value, `"none"` where it does not apply: the keys of all kinds that come with audio_cls and of those that the
    value has. With `own`, also those of every other kind that a file of the user's declared in this process.
    """
    out: dict[str, Any] = {}
    if cls.of is not None:
        for kind, member in cls.of.members().items():
            if not (own or member.is_built_in() or any(i.kind == kind for i in getattr(value, "items", ()))):
                continue
            item = next((i for i in getattr(value, "items", ()) if i.kind == kind), None)
            out[f"{prefix}{kind}"] = NONE if item is None else "on"
            out.update(
                {
                    k: v
                    for k, v in flatten(member, item, f"{prefix}{kind}.", own=own).items()
                    if k != f"{prefix}{kind}.kind"
                }
            )
        return out
    if cls.is_family():
        out[f"{prefix}kind"] = value.kind if value is not None else NONE
        for kind, member in cls.members().items():
            mine = value if value is not None and value.kind == kind else None
            if not (own or mine is not None or member.is_built_in()):
                continue
            for key, v in flatten(member, mine, prefix, own=own).items():
                if key != f"{prefix}kind" and (mine is not None or key not in out):
                    out[key] = v
        return out
    for name in cls.model_fields:
        child = component_of(cls, name)
        mine = getattr(value, name) if value is not None else None
        if child is not None:
            out.update(flatten(child, mine, f"{prefix}{name}.", own=own))
        elif mine is None:
            out[f"{prefix}{name}"] = NONE
        else:
            out[f"{prefix}{name}"] = list(mine) if isinstance(mine, tuple) else mine
    return out


# -- the list of keys ---------------------------------------------------------------------------------------------------


def catalogue(cls: type[Node], prefix: str = "") -> list[Key]:
    """Return every key over all kinds, with its default, what it takes and what it is; a family has a row for each of its members."""
    rows: list[Key] = []
    for name, field in cls.model_fields.items():
        child, key, text = component_of(cls, name), f"{prefix}{name}", description(cls, name)
        if child is None:
            rows.append(
                Key(key, cls.kind, value_text(field.default), type_text(field.annotation, field.metadata), text)
            )
        elif child.of is not None:
            for kind, member in child.of.members().items():
                rows.append(
                    Key(f"{key}.{kind}", "", NONE, "on, none", member.summary().partition(". ")[0].rstrip(".:"))
                )
                rows += catalogue(member, f"{key}.{kind}.")
        elif child.is_family():
            default = field.default.kind if isinstance(field.default, Node) else ""
            rows.append(Key(f"{key}.kind", "", default, ", ".join(child.members()), text))
            for kind, member in child.members().items():
                rows.append(Key(f"{key}.kind", kind, kind, kind, member.summary()))
                rows += catalogue(member, f"{key}.")
        else:
            rows += catalogue(child, f"{key}.")
    return rows


def merged(keys: Sequence[Key]) -> list[Key]:
    """Return the keys with those that several kinds share given once, their kinds listed."""
    kinds: dict[tuple[str, str, str, str], list[str]] = {}
    for key, kind, *rest in keys:
        kinds.setdefault((key, *rest), []).append(kind)  # type: ignore[arg-type]
    return [Key(key, ", ".join(dict.fromkeys(k for k in of if k)), *rest) for (key, *rest), of in kinds.items()]


def description(cls: type[Node], name: str) -> str:
    """Return what a field is: the docstring below it, here or in the class where it was first declared."""
    for owner in cls.__mro__:
        fields = getattr(owner, "__pydantic_fields__", {})
        text = field_docs(owner).get(name) or (fields[name].description if name in fields else None)
        if text:
            return " ".join(text.split())
    return ""
