"""Components: overrides, digests, flat rows, and the words of their errors."""

from __future__ import annotations

from typing import ClassVar

import pytest

from audio_cls.config import Component, ComponentSet, ConfigError, parse_assignment


class Shape(Component, family=True):
    pass


class Ball(Shape, kind="ball"):
    radius: float = 1.0


class Box(Shape, kind="box"):
    width: int = 2
    sides: tuple[int, ...] = (1, 2)


class Paint(Component, family=True):
    order: ClassVar[int] = 0
    p: float = 1.0


class Red(Paint, kind="red"):
    order: ClassVar[int] = 2


class Blue(Paint, kind="blue"):
    depth: int = 3


class Coat(ComponentSet):
    of = Paint


class Toy(Component):
    shape: Shape = Ball()
    coat: Coat = Coat()
    price: float = 9.5
    owner: str | None = None


def test_round_trip_and_digest() -> None:
    toy = Toy().override({"shape.kind": "box", "shape.sides": [3, 4], "coat.blue.depth": 5, "coat.red": "on"})
    assert Toy.from_json(toy.to_json()) == toy
    assert Toy.from_json(toy.to_json()).digest() == toy.digest() != Toy().digest()
    assert [item.kind for item in toy.coat.items] == ["blue", "red"]
    assert Toy.parse({"coat": {"red": {}, "blue": {"depth": 5}}}).coat == toy.coat
    assert hash(toy) == hash(Toy.from_json(toy.to_json()))


def test_override_order_does_not_matter() -> None:
    a = Toy().override({"shape.width": 7, "shape.kind": "box"})
    b = Toy().override({"shape.kind": "box", "shape.width": 7})
    assert a == b
    assert a.shape == Box(width=7)
    assert a.override({"shape": "box"}) == a, "naming the kind that is there keeps its values"
    assert a.override({"shape": "ball"}).shape == Ball()
    assert a.override({"shape": {"kind": "box"}}).shape == Box()


def test_flat_rows_have_the_same_keys() -> None:
    toys = [Toy(), Toy().override({"shape": "box", "coat.blue.depth": 1}), Toy().override({"owner": "me"})]
    rows = [t.flatten() for t in toys]
    assert rows[0].keys() == rows[1].keys() == rows[2].keys()
    assert (rows[0]["shape.width"], rows[1]["shape.width"]) == ("none", 2)
    assert (rows[0]["coat.blue"], rows[1]["coat.blue"], rows[1]["coat.red"]) == ("none", "on", "none")
    assert rows[0]["owner"] == "none"
    assert toys[0].diff(toys[2]) == {"owner": ("none", "me")}
    assert toys[1].override({"coat.blue": None}).coat == Coat()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape.kind": "bal"}, ["'bal' is no shape", "Allowed: ball, box", "Did you mean 'ball'"]),
        ({"shape.radios": 1}, ["no key 'shape.radios'", "ball has no 'radios'", "Did you mean 'shape.radius'"]),
        ({"prize": 1}, ["no key 'prize'", "Did you mean 'price'"]),
        ({"price": "dear"}, ["toy.price", "valid number", "'dear'"]),
        ({"price.x": 1}, ["'price' is a value"]),
        ({"coat.bleu.depth": 1}, ["'bleu' is no paint", "Did you mean 'blue'"]),
        ({"coat.blue.depth": 1.5}, ["coat", "depth", "1.5"]),
        ({"owner": 3}, ["toy.owner", "valid string"]),
    ],
)
def test_errors_name_what_was_asked_and_what_is_allowed(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Toy().override(changes)
    for word in words:
        assert word in str(caught.value)


def test_kind_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"toy\.shape: the key 'kind' is missing\. Allowed: ball, box"):
        Toy.parse({"shape": {"radius": 2.0}})


def test_frozen_strict_and_each_kind_once() -> None:
    with pytest.raises(Exception, match="frozen"):
        Toy().price = 1.0  # type: ignore[misc]
    with pytest.raises(ConfigError, match="valid integer"):
        Toy.parse({"shape": {"kind": "box", "width": True}})
    with pytest.raises(ConfigError, match="at most once"):
        Toy.parse({"coat": [Blue(), Blue()]})
    with pytest.raises(ConfigError, match="finite"):
        Toy.parse({"price": float("nan")})


def test_a_kind_belongs_to_one_class() -> None:
    with pytest.raises(ConfigError, match="is taken"):

        class Other(Shape, kind="ball"):
            pass


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1), ("a=1e-3", 1e-3), ("a=.5", 0.5), ("a=none", None), ("a=true", True), ("a=False", False),
        ("a=[1,2]", [1, 2]), ("a=x", "x"), ('a="7"', "7"), ("a=nan", "nan"), ("a=", ""),
    ],
)  # fmt: skip
def test_assignments(text: str, value: object) -> None:
    key, found = parse_assignment(text)
    assert (key, found, type(found)) == ("a", value, type(value))


@pytest.mark.parametrize("text", ["a", "=3", ""])
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_assignment(text)
