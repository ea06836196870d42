"""Sound that arrives in real time: from an input device (sounddevice, PortAudio), or from a file that is played at its own pace."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from audio_cls.core.errors import UserError, did_you_mean
from audio_cls.data.audio import BadAudio, source_rate
from audio_cls.inference.streaming import read_blocks

__all__ = ["Captured", "FilePlayer", "LiveInput", "Microphone", "open_file", "open_microphone"]

Samples = NDArray[np.float32]

BLOCK_SECONDS = 0.05  # of sound that is handed on at a time
QUEUE_SECONDS = 10.0  # of sound that may wait for a model; what comes after is dropped and counted
SILENT_DEVICE_SECONDS = 5.0  # a device that hands over nothing for so long is gone

INSTALL = "pip install 'audio_cls[listen]'"
FROM_FILE = "--from FILE plays a file in real time instead"


@dataclass(frozen=True)
class Captured:
    """One block of sound.

    Attributes:
        samples: (n,) mono float32.
        at: when its last sample was captured, by `time.monotonic`.
    """

    samples: Samples
    at: float


class LiveInput(Protocol):
    """Where sound arrives in real time. Close it after use."""

    name: str
    sample_rate: int
    overruns: int
    """How often sound was lost before it was read."""

    def start(self) -> None:
        """Begin to capture."""

    def read(self, timeout: float) -> Captured | None:
        """Return the next block, waiting for at most `timeout` seconds; None where none came.

        Raises:
            EOFError: after the last block.
            UserError: where the device hands over no sound any more.
        """

    def close(self) -> None:
        """Release the device or the file."""


class Microphone:
    """An input device, read by PortAudio's callback into a queue.

    Args:
        sounddevice: the module, or an object with its `InputStream` and `PortAudioError`.
        index: of the device.
        name: of the device.
        sample_rate: in Hz; the device's own.
    """

    def __init__(
        self, sounddevice: Any, index: int, name: str, sample_rate: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.sample_rate, self.overruns = name, sample_rate, 0
        self._clock = clock
        self._heard_at = clock()
        self._blocks: queue.Queue[Captured] = queue.Queue(maxsize=round(QUEUE_SECONDS / BLOCK_SECONDS))
        try:
            self._stream = sounddevice.InputStream(
                device=index,
                samplerate=sample_rate,
                channels=1,
                dtype="float32",
                blocksize=round(BLOCK_SECONDS * sample_rate),
                latency="low",
                callback=self._on_block,
            )
        except sounddevice.PortAudioError as error:
            raise UserError(f"the input device {name!r} cannot be opened: {_one_line(error)}; {FROM_FILE}") from None
        self._error = sounddevice.PortAudioError

    def start(self) -> None:
        try:
            self._stream.start()
        except self._error as error:
            raise UserError(f"the input device {self.name!r} gives no sound: {_one_line(error)}; {FROM_FILE}") from None
        self._heard_at = self._clock()

    def _on_block(self, data: NDArray[np.float32], frames: int, when: Any, status: Any) -> None:
        """Take in a block; called by PortAudio's own thread, which must not wait."""
        if getattr(status, "input_overflow", False):
            self.overruns += 1
        try:
            self._blocks.put_nowait(Captured(data[:, 0].copy(), self._clock() - _age(when, frames, self.sample_rate)))
        except queue.Full:
            self.overruns += 1

    def read(self, timeout: float) -> Captured | None:
        try:
            block = self._blocks.get(timeout=timeout) if timeout > 0 else self._blocks.get_nowait()
        except queue.Empty:
            if self._clock() - self._heard_at > SILENT_DEVICE_SECONDS:
                raise UserError(
                    f"the input device {self.name!r} has handed over no sound for {SILENT_DEVICE_SECONDS:g} s: was it unplugged?"
                ) from None
            return None
        self._heard_at = self._clock()
        return block

    def close(self) -> None:
        self._stream.close()


class FilePlayer:
    """A file's sound at the pace of real time, or `speed` times that.

    A block is handed over when its last sample would have been played. Whoever reads too late gets the blocks at once, with the time
    at which they were due.

    Args:
        blocks: mono float32 blocks of any length, in order.
        sample_rate: of the blocks, in Hz.
        name: what is played.
        speed: 1 for real time.
    """

    def __init__(
        self,
        blocks: Iterator[Samples],
        sample_rate: int,
        name: str,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name, self.sample_rate, self.overruns = name, sample_rate, 0
        self._pace, self._clock, self._sleep = sample_rate * speed, clock, sleep
        self._blocks = _pieces(blocks, max(1, round(BLOCK_SECONDS * sample_rate)))
        self._next: Samples | None = None
        self._began = clock()
        self._samples = 0

    def start(self) -> None:
        self._next = next(self._blocks, None)  # the file is opened and its first block read before the time counts
        self._began = self._clock()

    def read(self, timeout: float) -> Captured | None:
        if self._next is None:
            self._next = next(self._blocks, None)
            if self._next is None:
                raise EOFError
        due = self._began + (self._samples + len(self._next)) / self._pace
        wait = due - self._clock()
        if wait > 0:
            self._sleep(min(wait, max(0.0, timeout)))
            if wait > timeout:
                return None
        block, self._next = self._next, None
        self._samples += len(block)
        return Captured(block, due)

    def close(self) -> None:
        self._blocks.close()


def open_microphone(wanted: str | None = None, sounddevice: Any = None) -> Microphone:
    """Open an input device at its own sample rate.

    Args:
        wanted: its number, its name or a part of it; the system's default input unless given.
        sounddevice: the module; another object in tests.

    Raises:
        UserError: without sounddevice or PortAudio, without an input device, or where the wanted one is none.
    """
    library = sounddevice if sounddevice is not None else _sounddevice()
    found = [(index, device) for index, device in enumerate(_devices(library)) if device["max_input_channels"] > 0]
    if not found:
        raise UserError(f"no microphone or other sound input is connected to this machine; {FROM_FILE}")
    index, device = _default(library, found) if wanted is None else _choose(found, wanted)
    return Microphone(library, index, device["name"], round(device["default_samplerate"]))


def open_file(path: Path, speed: float = 1.0) -> FilePlayer:
    """Open a file of any length to be played in real time, `speed` times as fast.

    Raises:
        UserError: for a file that is missing or cannot be read.
    """
    try:
        rate = source_rate(path)
    except (BadAudio, OSError) as error:
        raise UserError(f"--from {path}: {error}") from None
    return FilePlayer(_blocks_of(path, rate), rate, str(path), speed)


def _blocks_of(path: Path, rate: int) -> Generator[Samples, None, None]:
    try:
        yield from read_blocks(path, rate)
    except (BadAudio, OSError) as error:
        raise UserError(f"--from {path}: {error}") from None


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise UserError(f"listening needs sounddevice: {INSTALL}; {FROM_FILE}") from None
    except OSError:
        raise UserError(
            "sounddevice finds no PortAudio library: install the package libportaudio2 (apt-get install libportaudio2); "
            f"{FROM_FILE}"
        ) from None
    return sounddevice


def _devices(library: Any) -> list[dict[str, Any]]:
    try:
        return list(library.query_devices())
    except library.PortAudioError as error:
        raise UserError(
            f"the sound devices of this machine cannot be listed: {_one_line(error)}; {FROM_FILE}"
        ) from None


def _default(library: Any, found: list[tuple[int, dict[str, Any]]]) -> tuple[int, dict[str, Any]]:
    """Return the system's default input device; the first one where it names none."""
    default = library.default.device[0]
    return next((pair for pair in found if pair[0] == default), found[0])


def _choose(found: list[tuple[int, dict[str, Any]]], wanted: str) -> tuple[int, dict[str, Any]]:
    """Return the device of that number or name, or the only one whose name holds it."""
    if wanted.isdecimal():
        for pair in found:
            if pair[0] == int(wanted):
                return pair
    key = wanted.casefold().strip()
    exact = [pair for pair in found if pair[1]["name"].casefold() == key]
    partly = [pair for pair in found if key and key in pair[1]["name"].casefold()]
    if exact or len(partly) == 1:
        return (exact or partly)[0]
    listed = ", ".join(f"{index}: {device['name']}" for index, device in partly or found)
    if partly:
        raise UserError(f"--device-in {wanted!r} fits several input devices: {listed}. Name one by its number")
    hint = did_you_mean(wanted, [device["name"] for _, device in found])
    raise UserError(f"--device-in: no input device {wanted!r}. There are {listed}.{hint}")


def _age(when: Any, frames: int, sample_rate: int) -> float:
    """Return how many seconds ago the last sample of a block was captured, by PortAudio's clock; 0 where that names no time."""
    current, first = float(getattr(when, "currentTime", 0.0)), float(getattr(when, "inputBufferAdcTime", 0.0))
    if not current or not first:
        return 0.0
    return min(1.0, max(0.0, current - first - frames / sample_rate))


def _pieces(blocks: Iterator[Samples], size: int) -> Generator[Samples, None, None]:
    """Yield the same samples in blocks of at most `size`."""
    for block in blocks:
        for start in range(0, len(block), size):
            yield block[start : start + size]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
