"""What a study is: declared, loaded from a file, identified."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audio_cls.core.config import ConfigError
from audio_cls.core.errors import UserError
from audio_cls.study import (
    TPE,
    Median,
    NoPruning,
    Percentile,
    PrunerConfig,
    RandomSearch,
    SamplerConfig,
    load_study_file,
)
from audio_cls.study.declaration import identity_changes
from tests.study_fakes import Deep, Toy, declare, space

FILE = """
from tests.study_fakes import Toy, space
from audio_cls.study import Study
STUDY = Study("from-file", base=Toy(), space=space)
"""


def test_importing_loads_neither_optuna_nor_torch() -> None:
    code = "import sys, audio_cls.study; print([m for m in ('optuna', 'torch', 'mlflow', 'sqlalchemy') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_study_file_is_loaded_with_its_text(tmp_path: Path) -> None:
    path = tmp_path / "good.py"
    path.write_text(FILE)
    study, source = load_study_file(path)
    assert (study.name, study.direction, study.metric, source) == ("from-file", "maximize", "val/macro_f1", FILE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", "expected one Study"),
        (FILE.replace("STUDY =", "A =") + 'B = Study("other", base=Toy(), space=space)\n', "found A, B"),
        ("import nothing_of_this_name\n", "line 1"),
        ("x = 1\n\nx = (\n", "line 3"),
        (FILE + "\n1 / 0\n", "line 6: ZeroDivisionError"),
        (FILE.replace('"from-file"', '"a name"'), "line 4"),
    ],
)
def test_a_faulty_study_file_is_a_users_error(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / f"faulty_{abs(hash(text))}.py"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_study_file(path)
    assert expected in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"direction": "maximise"}, "Did you mean 'maximize'"),
        ({"name": "../up"}, "letters"),
        ({"sampler": Median()}, "SamplerConfig"),
        ({"pruner": None}, "median"),
        ({"space": {}}, "function"),
        ({"base": {}}, "Component"),
    ],
)
def test_a_declaration_that_does_not_hold_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        declare(**changes)


def test_what_a_space_returns_is_checked() -> None:
    with pytest.raises(UserError, match="must return a dictionary of dotted keys, it returned list"):
        declare(space=lambda trial: ["x"]).overrides(None)
    with pytest.raises(UserError, match="key 3"):
        declare(space=lambda trial: {3: 1}).overrides(None)
    with pytest.raises(UserError, match=r"test_declaration.py, line \d+\) failed: KeyError"):
        declare(space=lambda trial: {}["lr"]).overrides(None)
    with pytest.raises(ConfigError, match=r"model\.widht.*Did you mean 'model\.width'"):
        declare().experiment({"model.widht": 3})


def test_the_identity_tells_declarations_apart_but_not_layouts() -> None:
    def spaced(trial: Any) -> dict[str, Any]:
        # a comment
        return {"x": trial.suggest_float("x", 0.0, 1.0)}

    first = declare(space=spaced).identity()

    def spaced(trial: Any) -> dict[str, Any]:  # type: ignore[no-redef]
        return {
            "x": trial.suggest_float("x", 0.0, 1.0),
        }  # fmt: skip

    assert identity_changes(first, declare(space=spaced)) == []

    def spaced(trial: Any) -> dict[str, Any]:  # type: ignore[no-redef]
        return {"x": trial.suggest_float("x", 0.0, 2.0)}

    changes = identity_changes(first, declare(space=spaced))
    assert any("2.0" in line and line.strip().startswith("+") for line in changes)


def test_changes_name_the_key() -> None:
    stored = declare().identity()
    assert identity_changes(stored, declare()) == []
    changed = declare(
        base=Toy(model=Deep(layers=3)), sampler=TPE(seed=4, startup_trials=4), pruner=NoPruning(), metric="val/map"
    )
    lines = "\n".join(identity_changes(stored, changed, {"data": "abc"}))
    for part in (
        "base.model.kind: 'narrow' -> 'deep'",
        "sampler.seed: 3 -> 4",
        "pruner.kind: 'median' -> 'none'",
        "metric: 'val/macro_f1'",
    ):
        assert part in lines
    assert identity_changes({**stored, "data": "abc"}, declare(), {"data": "xyz"}) == [
        "data: another corpus, or the same one prepared anew: digest abc -> xyz"
    ]


def test_an_identity_stored_before_a_key_existed_still_holds() -> None:
    stored = declare().identity()
    del stored["sampler"]["candidates"]
    del stored["base"]["epochs"]
    assert identity_changes(stored, declare()) == []


@pytest.mark.parametrize("kind", sorted(SamplerConfig.members()))
def test_every_sampler_is_deterministic_by_seed(kind: str) -> None:
    import optuna

    def draws(seed: int) -> list[float]:
        study = optuna.create_study(sampler=SamplerConfig.parse(kind).make(seed))
        return [study.ask().suggest_float("x", 0, 1) for _ in range(3)]

    assert draws(1) == draws(1) != draws(2)


@pytest.mark.parametrize("kind", sorted(PrunerConfig.members()))
def test_every_pruner_goes_through_json_and_builds(kind: str) -> None:
    config = PrunerConfig.parse(kind)
    assert PrunerConfig.from_json(config.to_json()) == config
    assert hasattr(config.make(), "prune")


def test_settings_out_of_range_are_refused() -> None:
    for build in (
        lambda: TPE.parse({"seed": -1}),
        lambda: Percentile.parse({"percentile": 120.0}),
        lambda: Median.parse({"interval": 0}),
    ):
        with pytest.raises(ConfigError):
            build()
    with pytest.raises(ConfigError, match=r"seeds.*Did you mean 'seed'"):
        RandomSearch.parse({"seeds": 1})
    assert callable(space)
