"""What the JSON files of a study's archive may hold. Everything is checked before an import makes anything of it.

Types are strict (no number written as text), numbers lie where databases can store them, and what refers to another part
(`root_trial`, `resumed_from`, a checkpoint's place, a run's folder) refers to one that is there. Attributes that this version
does not know pass, as JSON values.
"""

from __future__ import annotations

import functools
import math
import posixpath
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import packages_distributions
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from audio_cls.core.errors import UserError
from audio_cls.core.names import check_name
from audio_cls.study.declaration import PrunerConfig, SamplerConfig

__all__ = ["RUN_ID", "RunRecord", "StudyRecord", "check_manifest", "check_run", "check_study"]

RUN_ID = r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}"
LARGEST_INTEGER = 2**31 - 1  # what every database stores as an integer
LARGEST_TIME = 10**14  # milliseconds since 1970
DEEPEST = 40  # levels of JSON values


def _plain_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text with a NUL character")
    text.encode()  # raises UnicodeEncodeError, a ValueError, for half of a surrogate pair
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a name with characters that cannot be printed")
    return text


def _json_value(value: Any, depth: int = 0) -> Any:
    """A value of JSON that a database can store."""
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        for key, content in value.items():
            _plain_text(key)
            _json_value(content, depth + 1)
    elif isinstance(value, list):
        for content in value:
            _json_value(content, depth + 1)
    elif isinstance(value, str):
        _plain_text(value)
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"a whole number of {len(str(value))} digits")
    return value


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("not a number")
    return value


def _time(text: str) -> str:
    time = datetime.fromisoformat(text)
    if time.tzinfo is not None or not 1970 < time.year < 3000:
        raise ValueError("expected a time without a zone, after 1970")
    return text


def _mlflow_key(text: str) -> str:
    if not re.fullmatch(r"[:/\w.\- ]+", text) or posixpath.normpath(text) != text or text.startswith(("..", "/")):
        raise ValueError("expected letters, digits and / : . _ - or a space")
    return text


Text = Annotated[str, AfterValidator(_plain_text)]
Key = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_plain_text), AfterValidator(_printable)]
Name = Annotated[str, AfterValidator(lambda text: check_name(text, "a study"))]
Json = Annotated[Any, AfterValidator(_json_value)]
Number = Annotated[float, AfterValidator(_not_nan)]
Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
Time = Annotated[str, AfterValidator(_time)]
RunId = Annotated[str, Field(pattern=rf"^{RUN_ID}$")]
Scalar = Annotated[bool | int | float | Text | None, AfterValidator(_json_value)]
MlflowKey = Annotated[str, Field(min_length=1, max_length=250), AfterValidator(_mlflow_key)]
Value = Annotated[str, Field(max_length=20_000), AfterValidator(_plain_text)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=True)


class _Space(_Record):
    digest: Text
    source: Text


class _Identity(_Record):
    format: Count
    base: dict[Key, Json]
    metric: Key
    direction: Literal["maximize", "minimize"]
    sampler: dict[Key, Json]
    pruner: dict[Key, Json]
    space: _Space
    data: Text = ""
    metric_version: Count | Text | None = None

    @model_validator(mode="after")
    def _parts(self) -> _Identity:
        for family, stored in ((SamplerConfig, self.sampler), (PrunerConfig, self.pruner)):
            kind = stored.get("kind")
            if not isinstance(kind, str):
                raise ValueError(f"{family.__name__} without a kind")
            if kind in family.members():  # one of the user's own is checked by the user's own file
                family.parse(stored, family.__name__)
        corpus = self.base.get("data")
        if corpus is not None and not isinstance(corpus, dict):
            raise ValueError("base.data: expected keys and values")
        return self


class _Launch(_Record):
    file: Key
    set: list[Text] = Field(default_factory=list)
    sources: dict[Key, Text] = Field(default_factory=dict)
    declaration: dict[Key, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _files(self) -> _Launch:
        for name in self.sources:
            parts = name.split("/")
            if (
                not name.endswith(".py")
                or re.search(r'[\\:*?"<>|]', name)
                or any(not p or p.startswith(".") or p.endswith(" ") or len(p.encode()) > 200 for p in parts)
            ):
                raise ValueError(f"{name!r} is no relative path of a Python file")
        taken = sorted(name for name in self.sources if _is_taken(name))
        if taken:
            raise ValueError(
                f"Python files that have the names of installed packages or of the standard library: {', '.join(taken)}. Rename "
                "them where the study comes from, and export it again"
            )
        folders = {str(parent) for name in self.sources for parent in PurePosixPath(name).parents}
        if clash := sorted(folders & self.sources.keys()):
            raise ValueError(f"{clash[0]!r} is a file and a folder")
        return self


class _StudyAttrs(_Record):
    __pydantic_extra__: dict[Key, Json]
    identity: _Identity | None = Field(default=None, alias="audio_cls")
    launch: _Launch | None = None
    mlflow_run_id: Text | None = None
    total: Count | None = None
    version_of: Name | None = None
    version_before: Name | None = None


class _TrialAttrs(_Record):
    __pydantic_extra__: dict[Key, Json]
    config: Count | None = None
    root_trial: Count | None = None
    resumed_from: Count | None = None
    attempt: Count = 0
    deaths: Count = 0
    inherited_epochs: Count = 0
    outcome: Literal["complete", "pruned", "failed", "interrupted", "abandoned"] | None = None
    reason: Text = ""
    ready: bool = False
    revived: bool = False
    no_prune: bool = False
    mlflow_run_id: Text | None = None
    carried_run_id: Text | None = None
    worker: Text | None = None
    experiment: Text | dict[Key, Json] | None = None
    overrides: dict[Key, Json] = Field(default_factory=dict)
    changes: dict[Key, Json] = Field(default_factory=dict)
    begun_as: list[Text] = Field(default_factory=list)

    @model_validator(mode="after")
    def _not_null(self) -> _TrialAttrs:
        for key in ("config", "root_trial"):
            if key in self.model_fields_set and getattr(self, key) is None:
                raise ValueError(f"{key} is null")
        return self


class _SystemAttrs(_Record):
    __pydantic_extra__: dict[Key, Json]
    fixed_params: dict[Key, Scalar] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _constraints(self) -> _SystemAttrs:
        for key, value in (self.__pydantic_extra__ or {}).items():
            values = value if isinstance(value, list) else [value]
            if key.startswith("constraints") and not all(isinstance(v, (int, float)) for v in values):
                raise ValueError(f"{key}: expected numbers")
        return self


class _Trial(_Record):
    number: Count
    state: Literal["COMPLETE", "PRUNED", "FAIL", "WAITING"]
    value: Number | None
    start: Time | None
    end: Time | None
    params: dict[Key, Scalar]
    distributions: dict[Key, dict[Key, Json]]
    user_attrs: _TrialAttrs
    system_attrs: _SystemAttrs
    curve: list[Annotated[tuple[Count, float], Field(strict=False)]]

    @model_validator(mode="after")
    def _whole(self) -> _Trial:
        if (self.state == "COMPLETE") and self.value is None:
            raise ValueError("complete, but without a value")
        if self.params.keys() != self.distributions.keys():
            raise ValueError("its params are not those of its distributions")
        for key, earlier in (("root_trial", self.number), ("resumed_from", self.number - 1)):
            found = getattr(self.user_attrs, key)
            if found is not None and found > earlier:
                raise ValueError(f"{key} {found} is no trial before it")
        return self


class StudyRecord(_Record):
    """`study.json`: a study with every trial."""

    name: Name
    direction: Literal["MAXIMIZE", "MINIMIZE"]
    attrs: _StudyAttrs
    trials: list[_Trial]

    @model_validator(mode="after")
    def _numbered(self) -> StudyRecord:
        if [t.number for t in self.trials] != list(range(len(self.trials))):
            raise ValueError("its trials are not numbered from 0 on")
        identity = self.attrs.identity
        if identity is not None and identity.direction.upper() != self.direction:
            raise ValueError(f"direction {self.direction}, but it was begun to {identity.direction}")
        return self

    @property
    def roots(self) -> dict[int, int]:
        """The first attempt of each trial, by number."""
        return {t.number: t.number if t.user_attrs.root_trial is None else t.user_attrs.root_trial for t in self.trials}

    @property
    def sources(self) -> dict[str, str]:
        """Its Python files, by relative path; none if its own file is not among them."""
        launch = self.attrs.launch
        if launch is None or PurePosixPath(launch.file.replace("\\", "/")).name not in launch.sources:
            return {}
        return launch.sources


class _Dataset(_Record):
    name: Annotated[Text, Field(min_length=1, max_length=500)]
    digest: Annotated[Text, Field(min_length=1, max_length=36)]
    source_type: Annotated[Text, Field(max_length=100)]
    source: Annotated[Text, Field(max_length=65_000)]
    schema_: Annotated[Text, Field(max_length=1_000_000)] | None = Field(alias="schema")
    profile: Annotated[Text, Field(max_length=16_000_000)] | None
    tags: dict[Annotated[Text, Field(min_length=1, max_length=255)], Annotated[Text, Field(max_length=500)]]


class RunRecord(_Record):
    """`mlflow/ID/run.json`: a run with every point of every curve."""

    run_id: RunId
    name: Annotated[Text, Field(max_length=250)]
    experiment: Annotated[Key, Field(max_length=500)]
    note: Annotated[Text, Field(max_length=20_000)]
    start: Annotated[int, Field(ge=0, le=LARGEST_TIME)] | None
    end: Annotated[int, Field(ge=0, le=LARGEST_TIME)] | None
    status: Literal["FINISHED", "FAILED", "KILLED", "SCHEDULED"]
    params: dict[MlflowKey, Annotated[Value, Field(max_length=6000)]]
    tags: dict[MlflowKey, Annotated[Value, Field(max_length=8000)]]
    metrics: dict[
        MlflowKey,
        list[Annotated[tuple[Count, float, Annotated[int, Field(ge=0, le=LARGEST_TIME)]], Field(strict=False)]],
    ]
    data: list[_Dataset]


class _Data(_Record):
    corpus: Text = ""
    digest: Text = ""


class _Manifest(_Record):
    files: dict[str, Annotated[tuple[Annotated[int, Field(ge=0)], str], Field(strict=False)]]
    data: _Data = Field(default_factory=_Data)


R = TypeVar("R", bound=BaseModel)


def check_manifest(data: Mapping[str, Any], where: str) -> None:
    """Check `manifest.json` beyond its format and version, which the reader looks at first.

    Raises:
        UserError: naming the first fault and where it stands.
    """
    _check(_Manifest, data, where)


def check_study(data: Mapping[str, Any], where: str) -> StudyRecord:
    """Check `study.json`.

    Raises:
        UserError: naming the first fault and where it stands.
    """
    return _check(StudyRecord, data, where)


def check_run(data: Mapping[str, Any], where: str) -> RunRecord:
    """Check a `run.json`.

    Raises:
        UserError: naming the first fault and where it stands.
    """
    return _check(RunRecord, data, where)


def _check(model: type[R], data: Mapping[str, Any], where: str) -> R:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        place = ".".join(_short(str(part)) for part in faults[0]["loc"] if part != "function-after[_json_value(), any]")
        said = faults[0]["msg"].removeprefix("Value error, ")
        found = "" if isinstance(faults[0]["input"], (dict, list)) else f", found {_short(repr(faults[0]['input']))}"
        more = f" ({len(faults) - 1} more faults)" if len(faults) > 1 else ""
        raise UserError(f"{where}{': ' + place if place else ''}: {said}{found}{more}; nothing was imported") from None
    except UserError as error:  # of a name, a sampler, a pruner
        raise UserError(f"{where}: {error}; nothing was imported") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deep; nothing was imported") from None


def _short(text: str) -> str:
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


@functools.cache  # it reads the file lists of all packages
def _installed() -> frozenset[str]:
    return frozenset(packages_distributions())


def _is_taken(source: str) -> bool:
    """Whether a Python file has the name of an installed package or of the standard library."""
    top = source.partition("/")[0].removesuffix(".py")
    return (
        top in sys.stdlib_module_names or top in ("audio_cls", "sitecustomize", "usercustomize") or top in _installed()
    )
