"""Text for people: durations, counts, and control characters escaped."""

from __future__ import annotations

import logging
import re

__all__ = ["PrintableFormatter", "count", "duration", "printable"]

_BIDI = "\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\ud800-\udfff]")


def printable(text: str) -> str:
    """Text as it may go to a terminal: control characters are shown escaped, as in `\\x1b`, except line breaks and tabs.

    File names, labels and archives come from elsewhere; their escape sequences could rewrite what stands on the screen. Bytes of
    names that are not UTF-8 (surrogates in Python) are shown as `\\xe9`.
    """

    def escape(match: re.Match[str]) -> str:
        code = ord(match.group())
        if 0xDC80 <= code <= 0xDCFF:
            return f"\\x{code - 0xDC00:02x}"
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _CONTROL.sub(escape, text)


class PrintableFormatter(logging.Formatter):
    """Formats log records with their control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(n: int, noun: str, plural: str = "") -> str:
    """`1 interruption`, `2 interruptions`."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"
