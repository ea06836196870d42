"""Components: overrides, digests, flat rows, and the words of their errors."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from audio_cls.core.config import Component, ComponentSet, ConfigError, parse_assignment
from audio_cls.core.config_keys import merged
from audio_cls.core.config_text import Given, read_value
from audio_cls.core.errors import UserError
from audio_cls.data.sources.synthetic import Synthetic
from audio_cls.experiment import Experiment


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
        ({"shape.width": 1}, ["shape.kind is ball, which has no 'width'", "box has it: set shape.kind=box"]),
        ({"coat.blue": 3}, ["coat.blue: expected on, none, or keys below it such as coat.blue.p", "3"]),
        ({"shape": 3}, ["shape: set the keys below it", "found 3"]),
        ({"owner": "x" * 500, "price": "x" * 500}, ["'xxx", "xxx..."]),
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


@pytest.mark.parametrize("text", ["a=1", " a = 1e-3 ", "a=none", "a=[1,2]", 'a="7"', "a=", "a=b=c"])
def test_assignments(text: str) -> None:
    key, _, raw = text.partition("=")
    assert parse_assignment(text) == (key.strip(), raw.strip())


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "1", 1), (int, "1.5", 1.5), (int, "9" * 5000, "9" * 5000), (float, "1e-3", 1e-3), (float, ".5", 0.5),
        (float, "1", 1.0), (float, "nan", "nan"), (float, "1e400", math.inf), (int | None, "none", None), (int | None, "Null", None),
        (bool, "true", True), (bool, "False", False), (str, "x", "x"), (str, "7", "7"), (str, '"7"', "7"), (str, "none", "none"),
        (str, "", ""), (str, "a,b", "a,b"), (str | None, "none", None), (Literal["none", "band"], "none", "none"),
        (Literal["none", "band"], "None", "none"), (Literal["none", "band"] | None, "none", "none"),
        (Literal["a", "b"] | None, "none", None), (int | str, "3", 3), (int | str, "spk3", "spk3"), (int | str, '"3"', "3"),
        (tuple[int, ...], "32,64,128", (32, 64, 128)), (tuple[int, ...], "(32, 64, 128)", (32, 64, 128)),
        (tuple[int, ...], "[32,64,128]", (32, 64, 128)), (tuple[int, ...], "32", (32,)), (tuple[int, ...], "(32,)", (32,)),
        (tuple[int, ...], "()", ()), (tuple[int, ...], "32,x", (32, "x")), (tuple[float, float], "-6,6", (-6.0, 6.0)),
        (tuple[float, float] | None, "none", None), (tuple[str, ...], 'rain,"a b"', ("rain", "a b")),
    ],
)  # fmt: skip
def test_a_value_is_read_by_the_type_of_its_key(annotation: Any, text: str, value: object) -> None:
    found = read_value(Given(text), annotation)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["a", "=3", ""])
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_assignment(text)


def assigned(*texts: str) -> Experiment:
    return Experiment().override(dict(parse_assignment(text) for text in texts))


def test_the_word_none_is_a_choice_where_it_is_one() -> None:
    assert assigned("features.normalise=none").features.normalise == "none"
    assert assigned("loss.class_weights=effective", "loss.class_weights=none").loss == Experiment().loss
    assert assigned("training.early_stopping=5", "training.early_stopping=none").training.early_stopping is None
    assert Experiment().override({"features.normalise": None}).features.normalise == "none"
    assert assigned("augment.mixup=on", "augment.mixup=none").augment.items == ()


@pytest.mark.parametrize("text", ["32,64,128", "(32, 64, 128)", "[32,64,128]", "32, 64, 128"])
def test_a_tuple_is_taken_as_it_is_printed(text: str) -> None:
    assert assigned(f"model.widths={text}") == Experiment().override({"model.widths": (32, 64, 128)})


def test_every_default_is_taken_as_the_list_of_keys_prints_it() -> None:
    for key in Experiment.catalogue():
        family, _, field = key.key.rpartition(".")
        if key.kind and not key.key.startswith("augment."):
            kind = Experiment().override({f"{family}.kind": key.kind})
            assert kind.override({key.key: Given(key.default)}) == kind
        elif key.kind:
            on = Experiment().override({family: "on"})
            assert on.override({key.key: Given(key.default)}) == on
        elif key.default:
            assert Experiment().override({key.key: Given(key.default)}) == Experiment(), field


def test_every_key_is_described() -> None:
    keys = merged(Experiment.catalogue())
    assert not [key.key for key in keys if not key.description or not key.allowed]
    assert all("\n" not in "".join(key) and "\t" not in "".join(key) for key in keys)
    assert len({(key.key, key.kind) for key in keys}) == len(keys)
    [lr] = [key for key in keys if key.key == "optimizer.lr" and key.default == "0.001"]
    assert (lr.kind, lr.allowed) == ("adam, adamw, rmsprop", "float > 0")
    shown = {key.key: key.allowed for key in keys}
    assert shown["model.widths"] == "int > 0, ..."
    assert shown["augment.gain.db"] == "float, float"
    assert shown["training.early_stopping"] == "int >= 1 or none"


KEYS = sorted({key.key for key in Experiment.catalogue()})
PARTS = sorted({part for key in KEYS for part in key.split(".")})


def answer(function: Callable[[], Any]) -> Any:
    """What a function returns, or the error that it has for its user; any other exception fails the test."""
    try:
        return function()
    except UserError as error:
        return error


NASTY = [
    "", " ", "none", "None", "null", "true", "on", "0", "-1", "1e3", "1e400", "-inf", "nan", "9" * 4301, "1_000", "0x10", "1.5",
    "[]", "()", "[1", "1,2,", ",", ",,", "[[1]]", "[" * 2000, "{", "{}", '{"kind": 3}', '{"kind": "cnn4", "widths": "x"}', '{"a": 1}',
    '[{"kind": "mixup"}]', '["mixup"]', '"', '"x"', "'x'", "cnn4", "folds", "log_mel", "val/loss", "test/accuracy", "\0", "\udcff",
    "\x1b[31m", "²", "١٢", "a=b", "x" * 5000, "../../evil", "<script>", "1 000", "true,false",
]  # fmt: skip
"""What users and hostile files write behind `--set KEY=`."""


@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(KEYS), st.lists(st.sampled_from(["", *PARTS]), min_size=1, max_size=5).map(".".join)),
            st.one_of(st.sampled_from(NASTY), st.text(max_size=20), st.integers().map(str), st.floats().map(str)),
        ),
        min_size=1,
        max_size=3,
    )
)  # fmt: skip
@example([("training.metric", "\udcff")])
@example([("model", '{"kind": 3}'), ("model.widths", "1")])
@settings(max_examples=400, deadline=None)
def test_any_assignment_is_accepted_or_refused(pairs: list[tuple[str, str]]) -> None:
    """Whatever is assigned: an experiment that can be stored and read back, or one error."""
    experiment = answer(lambda: assigned(*(f"{key}={value}" for key, value in pairs)))
    if isinstance(experiment, UserError):
        assert isinstance(experiment, ConfigError)
        assert 0 < len(str(experiment)) < 3000
        return
    assert isinstance(experiment, Experiment)
    assert Experiment.from_json(experiment.to_json()) == experiment
    assert experiment.flatten().keys() == Experiment().flatten().keys()
    assert len(experiment.digest()) == 64
    assert str(answer(experiment.check))


@given(st.sampled_from(sorted(Synthetic.model_fields)), st.sampled_from(NASTY))
@settings(max_examples=100, deadline=None)
def test_any_setting_of_the_generator_is_accepted_or_refused(key: str, value: str) -> None:
    found = answer(lambda: Synthetic().override(dict([parse_assignment(f"{key}={value}")])))
    assert isinstance(found, (Synthetic, ConfigError))


def test_the_docstring_of_a_field_is_found_wherever_its_class_stands() -> None:
    class Local(Component):
        width: int = 8
        """Channels of
        a block."""
        depth: int = 2
        said: int = Field(default=0, description="said otherwise")

    class Wider(Local):
        width: int = 16

    assert [key.description for key in Wider.catalogue()] == ["Channels of a block.", "", "said otherwise"]

    cell = 'class InCell(Component):\n    rate: float = 1.0\n    "Share of clips."\n'
    linecache.cache["<cell 1>"] = (len(cell), None, cell.splitlines(keepends=True), "<cell 1>")  # as a notebook does
    names: dict[str, Any] = {"__name__": "cells", "Component": Component}
    exec(compile(cell, "<cell 1>", "exec"), names)
    assert [key.description for key in names["InCell"].catalogue()] == ["Share of clips."]
    exec(compile(cell.replace("InCell", "Unseen"), "<gone>", "exec"), names)
    assert [key.description for key in names["Unseen"].catalogue()] == [""]
