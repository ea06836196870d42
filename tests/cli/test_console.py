"""What is printed: tables that fit, progress that says how long, and nothing that steers the terminal."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from audio_cls.cli import console
from audio_cls.cli.console import Bars, progress, say, table
from audio_cls.core.formatting import PrintableFormatter, count, printable
from tests.commands import call


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dog.wav", "dog.wav"),
        ("Köter\tzwei\nZeilen", "Köter\tzwei\nZeilen"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("over\rwritten\x7f\x9b1m", "over\\x0dwritten\\x7f\\x9b1m"),
        ("name\u202egnp.exe", "name\\u202egnp.exe"),
        (b"caf\xe9.wav".decode("utf-8", "surrogateescape"), "caf\\xe9.wav"),
    ],
)
def test_control_characters_are_shown_escaped(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(text) == shown
    say(text)
    assert capsys.readouterr().out == f"{shown}\n"


@given(st.text(st.characters(codec=None)))
def test_nothing_that_is_printed_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    assert printable(shown) == shown


def terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(console, "console", lambda err=False: Console(file=out, width=width, force_terminal=True, color_system=None, highlight=False))  # fmt: skip
    return out


ROW = [
    "a configuration",
    "/a/path/that/is/longer/than/others/" + "x" * 40,
    "0.41 lies below the median of all",
    0.12345,
]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_word_of_a_table_is_broken(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal(monkeypatch, width)
    table("what was found, told in a title that is wide", ["name", "path", "reason", "value"], [ROW])
    lines = out.getvalue().splitlines()[1:]
    assert max(map(len, lines)) <= width
    text = out.getvalue()
    for word in ("configuration", "below", "median", "0.1235"):
        assert word in text
    known = {word for cell in [*ROW[:3], "name path reason value 0.1235"] for word in str(cell).split()}
    pieces = {word for line in lines for word in line.split() if set(word) != {"─"}}
    assert {p for p in pieces if p not in known and not any(k.startswith(p.rstrip("…")) and p[-1] == "…" for k in known)} == set()  # fmt: skip


def test_columns_that_do_not_fit_go_below(monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal(monkeypatch, 60)
    names = [f"metric{i}" for i in range(12)]
    table("by class", ["class", *names], [["belly_pain", *[0.1234] * 12]])
    text = out.getvalue()
    assert all(name in text for name in names)
    assert text.count("belly_pain") > 1
    assert text.count("0.1234") == 12


def test_a_table_in_a_pipe_is_never_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table("found", ["name", "path", "reason", "value"], [ROW])
    row = next(line for line in capsys.readouterr().out.splitlines() if "median" in line)
    assert all(str(part) in row for part in ROW[:3])


def test_a_figure_that_is_not_defined_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    table("figures", ["metric", "value"], [["auc", float("nan")], ["accuracy", 0.5]], right=(1,))
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert shown.split()[-4:] == ["auc", "undefined", "accuracy", "0.5"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_in_a_pipe_says_what_is_done_and_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    display = Bars("run", clock=clock)
    for done in range(0, 1000, 10):
        display.phase("computing features", done, 1000)
        clock.now += 0.5
    display.phase("computing features", 1000, 1000)
    display(0, 3, "epochs")
    clock.now += 4
    display(3, 3, "epochs")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run: computing features 200/1000 (10 s, about 40 s left)"
    assert lines[1] == "run: computing features 400/1000 (20 s, about 30 s left)"
    assert lines[-1] == "run: 3/3 epochs (54 s)"
    assert len(lines) == 6


def test_an_estimate_counts_what_was_done_here(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    display = Bars("run", clock=clock)
    display(18, 40, "epochs")
    clock.now += 20
    display(20, 40, "epochs")
    assert capsys.readouterr().out == "run: 20/40 epochs (20 s, about 3 min 20 s left)\n"


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal(monkeypatch, 100)
    with progress("run") as display:
        display.phase("computing features", 3, 9)
        display(1, 4, "epochs [bold]\x1b")
        display.phase("evaluation", 9, 9)
    assert "computing features" in out.getvalue()
    assert "run epochs [bold]\\x1b" in out.getvalue()


def test_one_is_singular() -> None:
    assert [count(1, "trial"), count(2, "trial"), count(2, "class", "classes")] == ["1 trial", "2 trials", "2 classes"]


def test_a_warning_does_not_steer_the_terminal() -> None:
    record = logging.LogRecord("audio_cls", logging.WARNING, "", 1, "%s is damaged", ("\x1b[31mred",), None)
    assert PrintableFormatter().format(record) == "\\x1b[31mred is damaged"


def test_an_error_does_not_steer_the_terminal(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, tmp_path, "data", "describe", "\x1b[31mred", code=2)
    assert "\x1b[31m" not in shown.replace("\x1b[31m\x1b[1merror: ", "")
    assert "\\x1b[31mred" in shown
