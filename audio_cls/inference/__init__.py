"""A trained run in use: labels for audio files."""
