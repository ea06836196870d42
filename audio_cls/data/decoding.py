"""What packing workers do: decode some clips of one file. Imports neither torch nor, for audio files, the codecs."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audio_cls.data.audio import BadAudio, audio_facts, load

if TYPE_CHECKING:
    from audio_cls.data.codecs.base import Reader

__all__ = ["close_reader", "decode_job", "rates_job"]

_open: tuple[tuple[str, str], Reader] | None = None  # the file read last: the next job is often of the same


def decode_job(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Decode some clips of one file: `codec` (None for an audio file), `path`, `parts`, and `request`, what is asked of all.

    Returns {"clips": facts, or {"bad": reason}, of each} and the rows of the good ones, back to back.
    """
    if job["codec"] is None:
        clips, payloads = zip(*(_decode_audio(job, part) for part in job["parts"]), strict=True)
    else:
        clips, payloads = zip(*_decode_parts(job), strict=True)
    return {"clips": list(clips)}, b"".join(payloads)


def rates_job(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the sample rates that the clips of a file of many say they have; None for one that says nothing."""
    from audio_cls.data.codecs import Codec

    return {"rates": Codec.parse(job["codec"]).source_rates(Path(job["path"]), job["positions"])}, b""


def close_reader() -> None:
    """Close the file that was read last."""
    global _open
    if _open is not None:
        _open[1].close()
    _open = None


def _decode_audio(job: dict[str, Any], part: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        audio = load(Path(job["path"]), start=part["start"], end=part["end"], **job["request"])
    except BadAudio as error:
        return {"bad": str(error)}, b""
    payload = audio.samples.tobytes()
    return {"length": len(audio.samples), "crc": zlib.crc32(payload), **audio_facts(audio)}, payload


def _decode_parts(job: dict[str, Any]) -> list[tuple[dict[str, Any], bytes]]:
    from audio_cls.data.codecs.base import Part

    try:
        reader = _reader(job["codec"], job["path"])
    except (BadAudio, OSError) as error:
        return [({"bad": _reason(error)}, b"")] * len(job["parts"])
    replies: list[tuple[dict[str, Any], bytes]] = []
    for part in job["parts"]:
        try:
            rows = reader.read(Part(**part, **job["request"]))
        except (BadAudio, OSError) as error:
            replies.append(({"bad": _reason(error)}, b""))
            continue
        payload = rows.values.tobytes()
        replies.append(({"length": len(rows.values), "crc": zlib.crc32(payload), **rows.facts}, payload))
    return replies


def _reader(codec: dict[str, Any], path: str) -> Reader:
    global _open
    from audio_cls.data.codecs import Codec

    key = (repr(codec), path)
    if _open is None or _open[0] != key:
        close_reader()
        _open = key, Codec.parse(codec).open(Path(path))
    return _open[1]


def _reason(error: Exception) -> str:
    return f"cannot be read: {error.strerror or error}" if isinstance(error, OSError) else str(error)
