"""Download a file with its checksum; what is interrupted goes on where it stopped (HTTP ranges)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

from audio_cls.core.errors import UserError

__all__ = ["fetch"]

Progress = Callable[[int, int, str], None]
_BLOCK = 1 << 20
_TRIES = 5  # without any byte received
_TIMEOUT = 60  # seconds without an answer
_RANGE_NOT_SATISFIABLE = 416


def fetch(url: str, path: Path, checksum: str, progress: Progress, *, pause: float = 2.0) -> None:
    """Download `url` to `path`, unless it is there: a file gets its name only after its checksum was found right.

    Args:
        checksum: "md5:..." or "sha256:..."; empty takes the one that the server names for the transfer, if any.
        progress: called with (bytes done, bytes in all, name of the file).
        pause: seconds before the first repetition after a failure; doubles with each.

    Raises:
        UserError: the server refuses, cannot be reached, the disk is too small, or the file is not what was published.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part, mark = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.version")
    tries = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            server = _transfer(url, part, mark, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise UserError(f"{url}: the server answers {error.code} ({error.reason})") from None
            reason = f"the server answers {error.code} ({error.reason})"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        tries = 0 if part.exists() and part.stat().st_size > before else tries + 1
        if tries >= _TRIES:
            raise UserError(
                f"{url}: {reason}. What was downloaded ({before:,} bytes) is kept: the same command goes on"
            ) from None
        time.sleep(pause * 2**tries)
    named = checksum or server
    found = _digest(part, named)
    if named and found != named:
        part.unlink()
        mark.unlink(missing_ok=True)
        raise UserError(
            f"{url}: the file is not what was published: its checksum is {found}, expected {named}. It was removed; try again, and if "
            "that does not help, look at the page that offers it: it may have been published anew"
        )
    os.replace(part, path)
    mark.unlink(missing_ok=True)


def _transfer(url: str, part: Path, mark: Path, progress: Progress) -> str:
    """Append what is missing of `url` to `part`, or begin again where the file has changed. Returns the server's checksum."""
    have = part.stat().st_size if part.exists() else 0
    version = mark.read_text(encoding="utf-8") if mark.exists() else ""
    headers = {"User-Agent": "audio-cls", "Accept-Encoding": "identity"}
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != _RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{have}":  # it was all there
            return _server_checksum(error.headers)
        part.unlink()
        return _transfer(url, part, mark, progress)
    with answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT and _starts_at(answer.headers, have)
        have = have if resumed else 0
        size = have + int(answer.headers.get("Content-Length") or 0)
        _check_room(part.parent, size - have, url)
        mark.write_text(_version(answer.headers), encoding="utf-8")
        with open(part, "ab" if resumed else "wb") as file:
            _copy(
                answer, file, have, size, lambda done: progress(done, max(size, done), part.name.removesuffix(".part"))
            )
        return _server_checksum(answer.headers)


def _copy(answer: Any, file: Any, have: int, size: int, told: Callable[[int], None]) -> None:
    while block := answer.read(_BLOCK):
        file.write(block)
        have += len(block)
        told(have)
    if size and have < size:
        raise http.client.IncompleteRead(b"", size - have)


def _starts_at(headers: Message, have: int) -> bool:
    return str(headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _version(headers: Message) -> str:
    """Return what tells this version of a file from another, for If-Range: a strong ETag, else the date of its last change."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _server_checksum(headers: Message) -> str:
    """Return the MD5 that a server names for the whole file (`x-goog-hash`), as "md5:..."; empty for none."""
    for text in headers.get_all("x-goog-hash", []):
        for item in text.split(","):
            name, _, value = item.strip().partition("=")
            if name == "md5":
                with contextlib.suppress(ValueError):
                    return "md5:" + base64.b64decode(value).hex()
    return ""


def _check_room(folder: Path, needed: int, url: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{url}: {needed / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free")


def _digest(path: Path, like: str) -> str:
    kind = like.partition(":")[0] or "sha256"
    with open(path, "rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
