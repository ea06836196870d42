"""What everything that reads data must hold: sources of layouts, codecs of files, windows of long clips."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from audio_cls.core.errors import UserError
from audio_cls.core.payload import DOMAINS, Payload
from audio_cls.data.codecs.base import Codec, Part
from audio_cls.data.manifest import Manifest
from audio_cls.data.sources.base import Source
from audio_cls.data.windows import EvaluationWindows
from audio_cls.doctor.findings import Check, Wrong, expect

__all__ = ["CODEC_CHECKS", "SOURCE_CHECKS", "WINDOW_CHECKS"]


# -- sources ----------------------------------------------------------------------------------------------------------


def check_detection(config: Source) -> None:
    """It recognises neither an empty folder nor one of something else, and says so without an error of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "notes").mkdir()
        (root / "notes" / "letter.txt").write_text("no audio", encoding="utf-8")
        (root / "empty").mkdir()
        for path in (root / "empty", root, root / "notes" / "letter.txt"):
            try:
                found: Any = config.detect(path)
            except UserError:
                continue
            kind = "a file" if path.is_file() else "a folder"
            expect(isinstance(found, bool), f"detect gives {found!r}", "return True or False")
            expect(
                not found, f"detect takes {kind} without any audio for this layout", "look for the layout's own marks"
            )


def check_reading(config: Source) -> None:
    """A folder without the layout is refused with a message."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            made: Any = config.read(Path(folder))
        except UserError:
            return
        except Exception as error:
            raise Wrong(
                f"read raises {type(error).__name__} for an empty folder: {error}",
                "raise audio_cls.UserError with the file, the row and what is needed",
            ) from None
        expect(
            isinstance(made, Manifest), f"read gives a {type(made).__name__}", "return a Manifest, or raise UserError"
        )


SOURCE_CHECKS: dict[str, Check] = {"detection": check_detection, "reading": check_reading}


# -- codecs -----------------------------------------------------------------------------------------------------------


def check_payload(config: Codec) -> None:
    for rate in (8000, 44100):
        payload: Any = config.payload(rate)
        expect(isinstance(payload, Payload), f"payload gives a {type(payload).__name__}", "return a Payload")
        expect(payload.domain in DOMAINS, f"its domain is {payload.domain!r}", f"name one of {', '.join(DOMAINS)}")
        expect(
            not config.reads_audio or (payload.is_waveform and payload.rate == rate),
            f"reads_audio is set, and its rows are {payload.domain}s at {payload.rate:g} a second for a sample rate of {rate} Hz",
            "return audio_cls.core.payload.waveform_payload(sample_rate)",
        )


def check_bad_files(config: Codec) -> None:
    """Files that are missing, empty or of another format are refused with a message, at once or when a clip is read."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in {"missing": None, "empty": b"", "text": b"no clip is in here\n" * 50}.items():
            path = Path(folder) / name
            if data is not None:
                path.write_bytes(data)
            try:
                reader = config.open(path)
                try:
                    rows = reader.read(Part(position=0, sample_rate=8000))
                finally:
                    reader.close()
            except UserError:
                continue
            except Exception as error:
                raise Wrong(
                    f"a file that is {name} raises {type(error).__name__}: {error}",
                    "raise audio_cls.data.audio.BadAudio with the reason: the clip is then listed, and the others are packed",
                ) from None
            raise Wrong(
                f"a file that is {name} gives a clip of {len(rows.values)} rows", "raise audio_cls.data.audio.BadAudio"
            )


CODEC_CHECKS: dict[str, Check] = {"payload": check_payload, "bad files": check_bad_files}


# -- windows of evaluation --------------------------------------------------------------------------------------------


def check_starts(config: EvaluationWindows) -> None:
    for rows, length in ((100, 30), (31, 30), (30, 30), (12, 30), (1, 1), (1000, 7)):
        starts = config.starts(rows, length, 10.0)
        room, case = max(0, rows - length), f"windows of {length} rows in a clip of {rows}"
        expect(
            isinstance(starts, np.ndarray) and starts.ndim == 1 and starts.dtype == np.int64 and len(starts) > 0,
            f"starts gives {getattr(starts, 'dtype', type(starts).__name__)} {np.shape(starts)} ({case})",
            "return one int64 array (n,) of one start at least",
        )
        expect(
            bool((starts >= 0).all()) and bool((starts <= room).all()),
            f"{case} start at {int(starts.min())} to {int(starts.max())}, where 0 to {room} fit",
            "keep starts between 0 and max(0, rows - length)",
        )
        expect(bool((np.diff(starts) >= 0).all()), f"starts are not ascending ({case})", "sort them")
        expect(
            len(starts) == 1 or config.combined_by is not None,
            f"{len(starts)} windows of a clip, and combined_by is None ({case})",
            "say how probabilities of windows are combined: mean, max or noisy_or",
        )
        again = config.starts(rows, length, 10.0)
        expect(np.array_equal(starts, again), f"two calls give two results ({case})", "draw no random numbers")


def check_words(config: EvaluationWindows) -> None:
    words: Any = config.describe(2.5)
    expect(
        isinstance(words, str) and words, f"describe gives {words!r}", "say in words what longer clips are judged by"
    )


WINDOW_CHECKS: dict[str, Check] = {"starts": check_starts, "words": check_words}
