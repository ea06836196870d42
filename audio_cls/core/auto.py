"""Values that are left to the data: `"auto"`, until an experiment is resolved against a corpus (`audio_cls.runs.resolve`)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from audio_cls.core.errors import UserError

__all__ = ["AUTO", "Auto", "OrAuto", "known"]

Auto = Literal["auto"]
AUTO: Final = "auto"
T = TypeVar("T")


class _OrAuto:
    """Accepts `"auto"` and validates anything else as the declared type, so that an error speaks of that type alone."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        declared = tuple(kind for kind in get_args(source) if kind != Auto)
        inner = handler.generate_schema(Union[declared])  # noqa: UP007 - built from a tuple
        return core_schema.no_info_wrap_validator_function(
            lambda value, check: AUTO if isinstance(value, str) and value == AUTO else check(value), inner
        )


OrAuto = Annotated[T | Literal["auto"], _OrAuto()]
"""The type of a field that may be left to the data: `OrAuto[int]`."""


def known(value: T | Literal["auto"], key: str) -> T:
    """Return the value of a field once it has been resolved.

    Raises:
        UserError: while it is still `"auto"`.
    """
    if isinstance(value, str) and value == AUTO:
        raise UserError(f"{key}=auto: the experiment has not been resolved against its corpus (audio_cls.runs.resolve)")
    return value
