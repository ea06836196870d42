"""Pictures of spectrograms (PNG, JPEG), each of whose columns along time is a row."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from audio_cls.core.payload import Payload
from audio_cls.data.audio import BadAudio, file_size
from audio_cls.data.codecs.base import Codec, Part, Reader, Rows

__all__ = ["PICTURE_SUFFIXES", "Pictures"]

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_FORMATS = ("PNG", "JPEG")
_MOST_PIXELS = 1 << 26  # of one picture: a small file can claim to be huge
_MOST_BYTES = 1 << 28
_LOOKED_AT = 400  # headers that `fitted` reads
_GREY = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
_TURNED: dict[str, tuple[int, bool]] = {"right": (1, False), "left": (1, True), "down": (0, False), "up": (0, True)}


class Pictures(Codec, kind="picture"):
    """One picture a clip; a row is what lies at one moment, (channels, height): pixels from the top (or left) edge on.

    Transparent parts are laid over white. Colours become grey by their luminance (ITU-R 601) where `channels` is 1. All rows of
    a corpus have one height: pictures of another are resized to it. `Pictures.fitted` finds the height that most have.
    """

    time: Literal["right", "left", "down", "up"] = "right"
    """Where later is: the axis of time and its direction."""
    height: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    """Pixels across time; pictures of another height are resized. None until it is `fitted`."""
    width: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    """Pixels along time; none keeps the proportions of the picture."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for red, green and blue."""
    bits: Literal[8, 16] = 8
    """Of a stored value; 16 keeps what 16 bit grey pictures hold."""
    columns_per_second: Annotated[float, Field(gt=0)] = 100.0
    """Pixels along time that are one second."""

    clips_per_job = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.bits == 16 and self.channels == 3:
            raise ValueError("bits=16 is for grey pictures (channels=1)")
        return self

    def payload(self, sample_rate: int | None) -> Payload:
        row = (self.channels, self.height or 1)
        dtype, top = ("uint16", 65535) if self.bits == 16 else ("uint8", 255)
        return Payload("image", dtype, row, self.columns_per_second, 1 / top)

    def open(self, path: Path) -> Reader:
        return _Reader(self, path)

    def fitted(self, paths: Sequence[Path]) -> Self:
        """Return a copy whose height, channels and bits are those of most of the pictures, where they were not set.

        Looks at the headers of up to 400 pictures, spread evenly.
        """
        found = _some_headers(paths)
        if not found:
            return self
        axis, _ = _TURNED[self.time]
        given, changes = self.model_fields_set, dict[str, Any]()
        if self.height is None:
            changes["height"] = Counter(size[axis] for _, size in found).most_common(1)[0][0]
        modes = [mode for mode, _ in found]
        if "channels" not in given:
            changes["channels"] = 1 if self.bits == 16 or all(mode in _GREY for mode in modes) else 3
        if "bits" not in given and changes.get("channels", self.channels) == 1:
            changes["bits"] = 16 if all(mode.startswith("I") for mode in modes) else 8
        return self.model_copy(update=changes)

    def resized(self, paths: Sequence[Path]) -> str:
        """Return a sentence on pictures that are resized to the height of most; empty where the headers looked at show none."""
        found = _some_headers(paths)
        others = [size[_TURNED[self.time][0]] for _, size in found if size[_TURNED[self.time][0]] != self.height]
        if not others:
            return ""
        return f"{len(others)} of {len(found)} pictures looked at are not {self.height} pixels across time (such as {others[0]}): resized"


class _Reader:
    def __init__(self, codec: Pictures, path: Path) -> None:
        self.codec, self.path = codec, path

    def close(self) -> None: ...

    def read(self, part: Part) -> Rows:
        codec = self.codec
        pixels = _pixels(self.path, codec)  # (height, width, channels) as seen
        axis, backwards = _TURNED[codec.time]
        across, along = 1 - axis, axis
        rows = pixels.transpose(along, 2, across)  # (time, channels, height)
        if backwards:
            rows = rows[::-1]
        if part.max_seconds is not None:
            rows = rows[: max(1, math.floor(part.max_seconds * codec.columns_per_second + 0.5))]
        return Rows(np.ascontiguousarray(rows).astype(codec.payload(None).storage, copy=False), {})


def _some_headers(paths: Sequence[Path]) -> list[tuple[str, tuple[int, int]]]:
    """Return mode and size of up to 400 pictures, spread evenly, without those that cannot be read."""
    return [header for header in map(_header, paths[:: max(1, len(paths) // _LOOKED_AT)]) if header is not None]


def _header(path: Path) -> tuple[str, tuple[int, int]] | None:
    """Return a picture's mode and size (width, height); None for one that cannot be read."""
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.mode, image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _pixels(path: Path, codec: Pictures) -> NDArray[Any]:
    """Return a picture as asked, (height, width, channels)."""
    from PIL import Image

    if file_size(path) > _MOST_BYTES:
        raise BadAudio(f"too large: more than {_MOST_BYTES:,} bytes")
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise BadAudio(f"too large: {image.width} x {image.height} pixels, at most {_MOST_PIXELS:,} are read")
            image.load()
            picture: Any = _resized(_converted(image, codec), codec)
    except BadAudio:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        told = "is no PNG or JPEG picture" if "cannot identify" in reason else f"cannot be decoded: {reason}"
        raise BadAudio(told) from None
    values = np.asarray(picture)
    if codec.bits == 16:
        values = np.clip(np.rint(values), 0, 65535)
    return values[:, :, None] if values.ndim == 2 else values


def _converted(image: Any, codec: Pictures) -> Any:
    """Return a picture in the mode "L", "RGB", or for 16 bit "F"."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        wide = image.convert("F")  # 0 to 65535
        if codec.bits == 16 and codec.channels == 1:
            return wide
        grey = Image.fromarray(np.clip(np.rint(np.asarray(wide) / 257), 0, 255).astype(np.uint8))
        return grey.convert("RGB" if codec.channels == 3 else "L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        image = Image.alpha_composite(white, seen)
    image = image.convert("RGB").convert("RGB" if codec.channels == 3 else "L")
    if codec.bits == 16:
        return Image.fromarray(np.asarray(image.convert("L"), np.float32) * 257)
    return image


def _resized(image: Any, codec: Pictures) -> Any:
    """Return a picture of the asked size, by a bicubic filter that covers what it shrinks, so that fine lines are not lost."""
    from PIL import Image

    axis, _ = _TURNED[codec.time]
    along, across = (image.width, image.height) if axis == 1 else (image.height, image.width)
    height = codec.height or across
    width = codec.width or max(1, round(along * height / across))
    if (along, across) == (width, height):
        return image
    return image.resize((width, height) if axis == 1 else (height, width), Image.Resampling.BICUBIC)
