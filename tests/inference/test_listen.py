"""`listen`: the ring buffers, the pace of a file that is played, input devices, what is shown and said at the end."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from audio_cls.core.errors import UserError
from audio_cls.inference.listening import QUIETEST, Latency, Listener
from audio_cls.inference.microphone import Captured, FilePlayer, Microphone, open_microphone


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Loudness:
    """A labeller whose probability of `loud` is the peak of what it hears; keeps what it heard."""

    classes, task, thresholds = ["loud", "quiet"], "multiclass", None

    def __init__(
        self, sample_rate: int = 1000, window: float | None = 1.0, takes: Callable[[], None] = lambda: None
    ) -> None:
        self.sample_rate, self.window_seconds, self.hop_seconds = sample_rate, window, 0.5
        self.name = f"at {sample_rate} Hz"
        self.heard: list[np.ndarray] = []
        self._takes = takes

    def scores(self, waveform: np.ndarray) -> np.ndarray:
        self._takes()
        self.heard.append(np.array(waveform))
        peak = float(np.abs(waveform).max())
        return np.array([peak, 1 - peak], np.float32)

    def top(self, scores: np.ndarray, n: int) -> list[tuple[str, float]]:
        return [(self.classes[i], float(scores[i])) for i in np.argsort(-scores)[:n]]


def player(samples: np.ndarray, clock: Clock, speed: float = 1.0, rate: int = 1000) -> FilePlayer:
    return FilePlayer(iter([samples[:800], samples[800:]]), rate, "x.wav", speed, clock, clock.sleep)


def test_each_model_hears_its_own_last_seconds() -> None:
    clock = Clock()
    sound = np.linspace(0.1, 0.9, 2500, dtype=np.float32)
    short, long = Loudness(window=0.4), Loudness(window=2.0)
    listener = Listener(player(sound, clock), [short, long], 0.5, clock)
    ends = [heard.end for heard in listener.hear()]
    assert ends == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5])
    assert [len(x) for x in short.heard[1:]] == [400] * 5  # the first call, of zeros, is before sound arrives
    assert [len(x) for x in long.heard[1:]] == [500, 1000, 1500, 2000, 2000]
    for k, end in enumerate((500, 1000, 1500, 2000, 2500), start=1):
        np.testing.assert_array_equal(short.heard[k], sound[end - 400 : end])
        np.testing.assert_array_equal(long.heard[k], sound[max(0, end - 2000) : end])
    assert listener.skipped == 0


def test_a_file_is_played_at_the_pace_of_real_time_and_faster() -> None:
    for speed in (1.0, 4.0):
        clock = Clock()
        listener = Listener(player(np.full(3000, 0.5, np.float32), clock, speed), [Loudness()], 0.5, clock)
        shown = [(heard.end, clock(), heard.captured_at) for heard in listener.hear()]
        assert len(shown) == 6
        for end, now, captured_at in shown:
            assert now - 100 == pytest.approx(end / speed)
            assert captured_at == pytest.approx(now)


def test_what_a_slow_model_misses_is_skipped_and_counted() -> None:
    clock = Clock()
    slow = Loudness(takes=lambda: clock.sleep(1.6))  # of a hop of half a second
    listener = Listener(player(np.full(10_000, 0.5, np.float32), clock), [slow], 0.5, clock)
    late = [clock() - heard.captured_at for heard in listener.hear()]
    assert len(late) < 10
    assert listener.skipped >= 10
    assert max(late) < 1.6 + 0.1  # what is shown is never older than one answer takes
    assert listener.seconds == 10


def test_a_model_at_another_rate_hears_the_resampled_sound() -> None:
    import soxr

    clock = Clock()
    sound = np.sin(2 * np.pi * 110 * np.arange(16_000) / 8000).astype(np.float32)
    ear = Loudness(sample_rate=5000, window=1.0)
    listener = Listener(player(sound, clock, rate=8000), [ear], 0.5, clock)
    heard = list(listener.hear())
    whole = soxr.resample(sound, 8000, 5000)
    middle = ear.heard[
        3
    ]  # two seconds of four half seconds: the window at 1.5 s, complete but for the resampler's delay
    errors = [np.abs(middle - whole[start : start + 5000]).max() for start in range(1000, 2501)]
    assert min(errors) < 1e-3
    delays = [clock_time - h.captured_at for h, clock_time in zip(heard, (100.5, 101.0, 101.5, 102.0), strict=True)]
    assert all(0 <= d < 0.2 for d in delays)


def test_silence_is_no_label_and_the_level_is_said() -> None:
    clock = Clock()
    sound = np.concatenate([np.zeros(1500, np.float32), np.full(500, 0.1, np.float32)])
    found = list(Listener(player(sound, clock), [Loudness(window=0.5)], 0.5, clock).hear())
    assert [heard.scores[0] is None for heard in found] == [True, True, True, False]
    assert [heard.level for heard in found] == pytest.approx([QUIETEST] * 3 + [-20.0])


def test_it_ends_after_the_asked_seconds_or_when_asked_to() -> None:
    clock = Clock()
    listener = Listener(player(np.full(10_000, 0.5, np.float32), clock), [Loudness()], 0.5, clock)
    assert len(list(listener.hear(seconds=2))) == 4
    calls = iter(range(40))
    listener = Listener(player(np.full(10_000, 0.5, np.float32), clock), [Loudness()], 0.5, clock)
    assert len(list(listener.hear(leave=lambda: next(calls) > 30))) < 20


def test_latency_in_words() -> None:
    latency = Latency()
    assert latency.describe() == ""
    for seconds in [0.01] * 90 + [0.2] * 10:
        latency.add(seconds)
    assert latency.describe().endswith("median 10 ms, 95th percentile 200 ms")


# --- input devices


class PortAudioError(Exception):
    pass


class Stream:
    """An input stream that is fed by hand."""

    def __init__(self, library: SoundDevice, **settings: Any) -> None:
        if library.refuses:
            raise PortAudioError("Error opening InputStream: Invalid sample rate\n[PaErrorCode -9997]")
        self.settings, self.state = settings, "open"
        library.streams.append(self)

    def start(self) -> None:
        self.state = "started"

    def close(self) -> None:
        self.state = "closed"

    def feed(self, samples: np.ndarray, overflow: bool = False) -> None:
        when = SimpleNamespace(currentTime=0.0, inputBufferAdcTime=0.0)
        self.settings["callback"](samples[:, None], len(samples), when, SimpleNamespace(input_overflow=overflow))


class SoundDevice:
    """What is used of the module sounddevice."""

    PortAudioError = PortAudioError

    def __init__(self, *devices: tuple[str, int, float], default: int = -1, refuses: bool = False) -> None:
        self.devices = [{"name": n, "max_input_channels": c, "default_samplerate": r} for n, c, r in devices]
        self.default = SimpleNamespace(device=[default, -1])
        self.refuses = refuses
        self.streams: list[Stream] = []

    def query_devices(self) -> list[dict[str, Any]]:
        return self.devices

    def InputStream(self, **settings: Any) -> Stream:
        return Stream(self, **settings)


TWO = (("HDA speakers", 0, 48000.0), ("USB microphone", 1, 44100.0), ("USB camera", 2, 16000.0))


@pytest.mark.parametrize(
    ("wanted", "index"), [(None, 2), ("1", 1), ("usb MICROPHONE", 1), ("camera", 2), ("USB camera", 2)]
)
def test_an_input_device_is_chosen_by_number_name_or_part_of_it(wanted: str | None, index: int) -> None:
    library = SoundDevice(*TWO, default=2)
    microphone = open_microphone(wanted, library)
    settings = library.streams[0].settings
    assert (settings["device"], settings["samplerate"]) == (index, {1: 44100, 2: 16000}[index])
    assert microphone.name == TWO[index][0]
    microphone.close()
    assert library.streams[0].state == "closed"


@pytest.mark.parametrize(
    ("library", "wanted", "words"),
    [
        (SoundDevice(*TWO), "USB microfone", ["1: USB microphone, 2: USB camera", "Did you mean 'USB microphone'?"]),
        (SoundDevice(*TWO), "0", ["no input device '0'"]),
        (SoundDevice(*TWO), "usb", ["fits several", "by its number"]),
        (SoundDevice(("HDA speakers", 0, 48000.0)), None, ["no microphone", "--from FILE"]),
        (
            SoundDevice(*TWO, refuses=True),
            "1",
            ["'USB microphone' cannot be opened", "Invalid sample rate", "--from FILE"],
        ),
    ],
)
def test_a_device_that_is_not_there_is_one_clear_error(
    library: SoundDevice, wanted: str | None, words: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        open_microphone(wanted, library)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_library_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__
    for fault, words in (
        (OSError("PortAudio library not found"), "libportaudio2"),
        (ImportError(), "audio_cls[listen]"),
    ):

        def load(name: str, *args: Any, fault: Exception = fault, **kwargs: Any) -> Any:
            if name == "sounddevice":
                raise fault
            return real(name, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", load)
            with pytest.raises(UserError, match="--from FILE") as error:
                open_microphone()
        assert words in str(error.value)


def test_a_microphone_counts_overruns_and_says_when_it_is_gone() -> None:
    clock = Clock()
    library = SoundDevice(*TWO)
    microphone = Microphone(library, 1, "USB microphone", 1000, clock)
    microphone.start()
    stream = library.streams[0]
    stream.feed(np.full(50, 0.25, np.float32))
    stream.feed(np.full(50, 0.5, np.float32), overflow=True)
    first = microphone.read(0)
    assert isinstance(first, Captured)
    assert first.samples.tolist() == [0.25] * 50
    assert microphone.read(0) is not None
    assert microphone.read(0) is None
    assert microphone.overruns == 1
    for _ in range(300):  # nobody reads: the queue is full after ten seconds of sound
        stream.feed(np.zeros(50, np.float32))
    assert microphone.overruns == 1 + 100
    while microphone.read(0) is not None:
        pass
    clock.sleep(6)
    with pytest.raises(UserError, match="unplugged"):
        microphone.read(0)


def test_live_sound_reaches_the_labels() -> None:
    library = SoundDevice(*TWO)
    microphone = Microphone(library, 1, "USB microphone", 1000)
    for _ in range(20):
        library.streams[0].feed(np.full(50, 0.75, np.float32))
    listener = Listener(microphone, [Loudness()], 0.5)
    heard = next(listener.hear())
    assert heard.scores[0] is not None
    assert heard.scores[0][0] == pytest.approx(0.75)
    assert 0 <= time.monotonic() - heard.captured_at < 60
    assert library.streams[0].state == "started"


# --- what is shown


def shown_on(terminal: bool) -> str:
    from rich.console import Console

    from audio_cls.cli.listen import Display
    from audio_cls.inference.listening import Heard

    out = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    one, other = Loudness(), Loudness(2000)
    one.classes = ["loud [b]", "qu\x1biet"]
    with Display([one, other], 1, out) as display:  # type: ignore[list-item]
        display.show(Heard(1.5, -20.0, [np.array([0.25, 0.75]), np.array([0.9, 0.1])], 0.0))
        display.show(Heard(2.0, -100.0, [None, None], 0.0))
    return out.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_bars_on_a_terminal_and_plain_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = shown_on(terminal=True)
    assert "at 1000 Hz" in drawn
    assert "at 2000 Hz" in drawn
    assert "█" in drawn
    assert "qu\\x1biet" in drawn
    assert "silence" in drawn
    assert shown_on(terminal=False) == ""
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "     1.5 s  -20.0 dB  at 1000 Hz: qu\\x1biet 0.75 | at 2000 Hz: loud 0.90",
        "     2.0 s -100.0 dB  at 1000 Hz: silence | at 2000 Hz: silence",
    ]
