"""How a command travels through the rooms: which room calls which, in order, in all of its processes. Run it in the repository.

    python benchmarks/journey.py train --set data.corpus=demo --set training.epochs=1
    python benchmarks/journey.py study run studies/demo.py --trials 1

Prints for each process the calls from one room into another in the order in which they first happen (the called function once
a pair of rooms), and two counts: rooms entered, and pairs of rooms that call up, which means that the called room imports the
calling one, directly or through others: a callback that was handed down, or a circle of imports.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

PACKAGE = Path("audio_cls").resolve()

HOOK = """
import atexit, json, os, sys, threading
ROOT, OUT = os.environ["JOURNEY_PACKAGE"] + os.sep, os.environ["JOURNEY_OUT"]
seen = {}
def room(path):
    return path[len(ROOT):].removesuffix(".py").split(os.sep)[0] if path.startswith(ROOT) else None
def watch(frame, event, arg):
    if event != "call" or frame.f_code.co_name.startswith("<"):
        return
    here = room(frame.f_code.co_filename)
    if here is None:
        return
    back = frame.f_back
    while back is not None and room(back.f_code.co_filename) is None:
        if "importlib" in back.f_code.co_filename:
            return
        back = back.f_back
    if back is None or back.f_code.co_name == "<module>" and room(back.f_code.co_filename) == here:
        return
    there = room(back.f_code.co_filename)
    if there != here:
        seen.setdefault((there, here), frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name)
def write():
    sys.setprofile(None)
    if seen:
        with open(os.path.join(OUT, f"{os.getpid()}.json"), "w") as file:
            json.dump({"argv": sys.argv, "calls": [[*pair, name] for pair, name in seen.items()]}, file)
atexit.register(write)
sys.setprofile(watch)
threading.setprofile(watch)
"""


def imports() -> dict[str, set[str]]:
    """Return the rooms that each room imports, imports inside functions included."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found[own] |= {name.split(".")[1] for name in names if name.startswith("audio_cls.")} - {own}
    return found


def reaches(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return the rooms that a room imports, directly or through others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for room in graph[waiting.pop()] - found:
            found.add(room)
            waiting.append(room)
    return found


def main() -> None:
    graph = imports()
    with tempfile.TemporaryDirectory() as folder:
        hook = Path(folder) / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
        paths = [str(hook), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "JOURNEY_OUT": folder,
            "JOURNEY_PACKAGE": str(PACKAGE),
        }
        subprocess.run([sys.executable, "-P", "-m", "audio_cls.cli", *sys.argv[1:]], env=env, check=False)
        journeys = [
            json.loads(p.read_text()) for p in sorted(Path(folder).glob("*.json"), key=lambda p: p.stat().st_mtime)
        ]
    entered, climbs = set(), set()
    for journey in journeys:
        print("\nprocess:", " ".join(journey["argv"])[:100])
        for caller, called, name in journey["calls"]:
            up = caller in reaches(graph, called)
            entered |= {caller, called}
            climbs |= {(caller, called)} if up else set()
            print(f"  {caller} -> {called}.{name}{'   (up)' if up else ''}")
    print(f"\nrooms entered: {len(entered - {'__init__'})}, pairs of rooms that call up: {len(climbs)}")


if __name__ == "__main__":
    main()
