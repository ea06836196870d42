"""The command line: parse, call, print. Law: only here is anything printed, asked or parsed, and does a process exit."""

from __future__ import annotations

from audio_cls.core.interpreter import drop_current_folder

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run a command line (this process's own unless given) and return its exit code."""
    if argv is None:
        drop_current_folder()  # before anything else is imported
    from audio_cls.cli.app import main as run

    return run(argv)
