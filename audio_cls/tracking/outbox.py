"""Operations that could not be sent to the tracking server, kept on disk in order until they can.

One run's unsent operations are one append-only file of JSON lines, `outbox/NAME.jsonl`, its artifacts beside it in
`outbox/NAME/`, and a marker `outbox/NAME.sent` that counts what has been sent. The file is locked while in use, so that two
processes never send the same run; the operating system releases the lock when a process dies. A torn last line (power lost
while appending) is dropped: its operation was never acknowledged. Any other line that cannot be read (a damaged disk) is put
aside in `outbox/NAME.damaged`, and the rest is sent. Knows nothing of MLflow.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audio_cls.core.locks import try_lock
from audio_cls.core.workspace import atomic_write, fsync_folder

__all__ = ["DAMAGED", "Operation", "Outbox", "is_operation"]

Operation = dict[str, Any]
DAMAGED = "damaged"  # the key of a line that cannot be read, and the mark of a head that cannot
_FIELDS: dict[str, dict[str, type]] = {  # what each operation must have
    "open": {"experiment": dict, "name": str, "time": int, "tags": dict, "resume": bool},
    "params": {"values": dict},
    "metrics": {"step": int, "time": int, "values": dict},
    "tags": {"values": dict},
    "artifact": {},
    "model": {"name": str, "weights": str, "tags": dict, "note": str},
    "finish": {"status": str, "time": int, "tags": dict},
    "dataset": dict.fromkeys(("name", "digest", "source_type", "source", "profile", "context"), str),
}


class Outbox:
    """The unsent operations of one run, locked for this process. Made by `Outbox.open`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._folder = path.with_suffix("")
        self._marker = path.with_suffix(".sent")
        lines = self._read()
        self.head: Operation = _head(path, lines[0]) if lines else {}
        self._count = len(lines) - 1 if lines else 0
        state = _read_marker(self._marker)
        self._sent: int = state.get("sent", 0)
        self.run_id: str | None = state.get("run_id") or self.head.get("run_id")

    @classmethod
    def open(cls, folder: Path, uid: str, head: Operation, wait_seconds: float = 5.0) -> Outbox:
        """Open the run's outbox to append; where another process holds it for longer than `wait_seconds`, a second one.

        `head` (the run's uid, its id when known, the tracking server) is written as the first line of a new file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + wait_seconds
        for number in range(1000):
            path = folder / (f"{uid}.jsonl" if number == 0 else f"{uid}+{number}.jsonl")
            while (box := cls._lock(path, create=True)) is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if box is not None:
                try:
                    if not box.head:
                        box._start({**head, "uid": uid, "time": time.time()})
                except BaseException:  # a full disk: the file must not stay locked by a box that nobody has
                    os.close(box._fd)
                    raise
                return box
        raise OSError(f"no free outbox for {uid} in {folder}")

    @classmethod
    def take(cls, path: Path, wait_seconds: float = 0.0) -> Outbox | None:
        """Open an outbox that exists; None if it is gone, or another process holds it for longer than `wait_seconds`."""
        deadline = time.monotonic() + wait_seconds
        while (box := cls._lock(path, create=False)) is None and path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return box

    @classmethod
    def heads(cls, folder: Path) -> Iterator[tuple[Path, Operation]]:
        """Return the outboxes of a folder with their first line, oldest first, without locking; `run_id` as far
        as it is known.
        """
        found = []
        for path in folder.glob("*.jsonl") if folder.is_dir() else ():
            try:
                with open(path, "rb") as file:
                    line = file.readline()
                state = _read_marker(path.with_suffix(".sent"))
                head = _head(path, _parse(line)) if line.endswith(b"\n") else {}
            except OSError:
                continue  # just removed
            if head:
                found.append((path, {**head, "run_id": state.get("run_id") or head.get("run_id")}))
        yield from sorted(found, key=lambda item: (item[1].get("time", 0.0), item[0].name))

    def append(self, operation: Operation) -> None:
        """Keep one operation durably. An artifact (`path` or `text`) is copied first, since the original may go.

        Raises:
            OSError: where the disk is full or read-only; nothing of the operation is kept then.
        """
        size = os.fstat(self._fd).st_size
        place = self._folder / str(self._count)
        try:
            if operation["op"] == "artifact":
                operation = self._store(operation, place)
            line = json.dumps(operation, ensure_ascii=False) + "\n"
            self._write(line.encode())
        except BaseException:
            os.ftruncate(self._fd, size)
            shutil.rmtree(place, ignore_errors=True)
            raise
        self._count += 1

    def pending(self) -> list[Operation]:
        """Return what is still to be sent, in order; artifacts with a `path` that can be opened. A line that
        cannot be read is there as well, and is no operation (`is_operation`).
        """
        out = []
        for operation in self._read()[1 + self._sent :]:
            if "stored" in operation:
                operation = {**operation, "path": str(self._folder / operation.pop("stored"))}
            out.append(operation)
        return out

    def mark(self, run_id: str | None) -> None:
        """The next pending operation has been sent (to the run `run_id`)."""
        self._sent, self.run_id = self._sent + 1, run_id or self.run_id
        atomic_write(self._marker, json.dumps({"sent": self._sent, "run_id": self.run_id}))

    def refuse(self, operation: Operation, reason: str) -> None:
        """Put aside, in `NAME.refused`, what the server will never take."""
        with open(self.path.with_suffix(".refused"), "a", encoding="utf-8") as file:
            file.write(json.dumps({**operation, "refused": reason}, ensure_ascii=False) + "\n")

    def set_aside(self, operation: Operation) -> Path:
        """Keep a damaged line in `NAME.damaged`; returns that file."""
        place = self.path.with_suffix(".damaged")
        with open(place, "a", encoding="utf-8") as file:
            file.write((operation.get(DAMAGED) or json.dumps(operation, ensure_ascii=False)) + "\n")
        return place

    def close(self) -> None:
        """Release the outbox; remove it when everything has been sent."""
        if self._fd < 0:
            return
        if self._sent >= self._count:
            shutil.rmtree(self._folder, ignore_errors=True)
            self.path.unlink(missing_ok=True)  # before its marker: without it everything would be sent again
            self._marker.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1

    # -- the file ---------------------------------------------------------------------------------------------------

    @classmethod
    def _lock(cls, path: Path, create: bool) -> Outbox | None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0), 0o666)
        except FileNotFoundError:
            return None
        try:
            if try_lock(fd) and os.stat(path).st_ino == os.fstat(fd).st_ino:  # else its last holder has just removed it
                box = cls(path, fd)
                fd = -1
                return box
        except FileNotFoundError:
            pass
        finally:
            if fd >= 0:
                os.close(fd)
        return None

    def _start(self, head: Operation) -> None:
        self._marker.unlink(missing_ok=True)  # a marker without its file is left over from a kill while removing
        shutil.rmtree(self._folder, ignore_errors=True)
        self._sent, self.run_id = 0, head.get("run_id")
        self._write((json.dumps(head) + "\n").encode())
        fsync_folder(self.path.parent)
        self.head = head

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        os.fsync(self._fd)

    def _read(self) -> list[Operation]:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.ftruncate(self._fd, len(whole))
        return [_parse(line) for line in whole.split(b"\n")[:-1]]

    def _store(self, operation: Operation, place: Path) -> Operation:
        place.mkdir(parents=True, exist_ok=True)
        if "text" in operation:
            name = operation["name"]
            atomic_write(place / name, operation["text"])
        else:
            source = Path(operation["path"])
            name = source.name
            if source.is_dir():
                shutil.copytree(source, place / name, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, place / name)
                with open(place / name, "rb") as file:
                    os.fsync(file.fileno())
        rest = {k: v for k, v in operation.items() if k not in ("text", "name", "path")}
        return {**rest, "stored": f"{place.name}/{name}"}


def is_operation(value: Operation) -> bool:
    """Whether a line of an outbox says something that can be sent."""
    fields = _FIELDS.get(str(value.get("op")))
    return fields is not None and all(isinstance(value.get(key), kind) for key, kind in fields.items())


def _parse(line: bytes) -> Operation:
    """Return a line's JSON object; `{"damaged": its text}` where it is none."""
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {DAMAGED: line.decode(errors="replace").rstrip("\n")}


def _head(path: Path, value: Operation) -> Operation:
    """Return the first line of an outbox. Where it is damaged, the file's name tells the run; `backend` is missing then."""
    if isinstance(value.get("uid"), str):
        return value
    return {"uid": path.stem.partition("+")[0], "run_id": None, "time": 0.0, DAMAGED: True}


def _read_marker(path: Path) -> dict[str, Any]:
    """Return how much has been sent; nothing if the marker is missing or damaged, since sending twice changes
    nothing.
    """
    try:
        state = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    sent, run_id = (state.get("sent"), state.get("run_id")) if isinstance(state, dict) else (None, None)
    if not isinstance(sent, int) or sent < 0 or not (run_id is None or isinstance(run_id, str)):
        return {}
    return {"sent": sent, "run_id": run_id}
