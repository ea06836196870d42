"""Draw the rooms of the package, floor by floor, from the contract in pyproject.toml: docs/rooms.svg.

    python docs/draw_rooms.py

A room may import from the floors below it and from itself.
"""

from __future__ import annotations

import html
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "cli": ("parse, call, print", "click, rich"),
    "ablation": ("arms x seeds x folds, verdicts", ""),
    "ui": ("start page before MLflow's UI", "MLflow's app"),
    "study": ("searches: sampler, pruner, archives", "Optuna"),
    "queue": ("many runs as one durable list", "Optuna"),
    "inference": ("a trained run in use", ""),
    "runs": ("one run from start to record", ""),
    "training": ("loop, batches, checkpoints", ""),
    "experiment": ("the value, and its chain", ""),
    "report": ("figures and one-file pages", "Plotly"),
    "doctor": ("contract checks of parts", ""),
    "data": ("sources, packing, corpus, splits", ""),
    "metrics": ("metrics and paired statistics", ""),
    "tracking": ("runs in MLflow, an outbox", "MLflow"),
    "components": ("models, losses, features, ...", ""),
    "core": ("configuration, errors, workspace, locks, random numbers", ""),
}
WIDTH, HEIGHT, GAP, MARGIN = 940, 58, 14, 46


def floors() -> list[list[str]]:
    """Return the rooms of each floor, the top floor first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in layers]


def draw() -> str:
    """Return the picture as SVG."""
    levels = floors()
    height = len(levels) * (HEIGHT + GAP) + GAP
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" role="img">',
        "<title>The rooms of audio_cls: a room imports from the floors below it</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for level, rooms in enumerate(levels):
        y = GAP + level * (HEIGHT + GAP)
        out.append(f'<text x="14" y="{y + 35}" font-size="15" fill="#777777">{len(levels) - 1 - level}</text>')
        width = (WIDTH - MARGIN - GAP * len(rooms)) / len(rooms)
        for k, room in enumerate(rooms):
            what, library = ROOMS[room]
            x = MARGIN + k * (width + GAP)
            fill, line = ("#e8f1ee", "#20685f") if library else ("#f4f4f1", "#8a8a80")
            middle = x + width / 2
            name = f"{room} ({library})" if library else room
            out += [
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT}" rx="7" fill="{fill}" stroke="{line}"/>',
                f'<text x="{middle:.0f}" y="{y + 24}" font-size="16" font-weight="bold" text-anchor="middle" '
                f'fill="#1c1c1a">{html.escape(name)}</text>',
                f'<text x="{middle:.0f}" y="{y + 44}" font-size="12.5" text-anchor="middle" '
                f'fill="#444444">{html.escape(what)}</text>',
            ]
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    (ROOT / "docs" / "rooms.svg").write_text(draw(), encoding="utf-8")
