"""The command line: parse, call, print."""

from audio_cls.cli.app import cli, main

__all__ = ["cli", "main"]
