"""`data get`: downloads from a server on loopback that breaks off, changes its files and lies; archives that mean harm."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from audio_cls.core.errors import UserError
from audio_cls.data import sources
from audio_cls.data.getting import catalogue, fetching
from audio_cls.data.getting.catalogue import CATALOGUE, Archive, DataSet, find_data_set
from audio_cls.data.getting.fetching import fetch
from audio_cls.data.getting.get import get
from audio_cls.data.getting.split_zip import open_split_zip
from audio_cls.data.getting.unpacking import unpack
from tests.commands import call
from tests.data import published_layouts as layouts


@dataclass
class Shelf:
    """What the server holds: files by name, and how it behaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of an answer, once
    ranges: list[str] = field(default_factory=list)  # that were asked for
    codes: list[int] = field(default_factory=list)  # of the next answers
    headers: dict[str, str] = field(default_factory=dict)
    address: str = ""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def archive(self, name: str, *parts: str) -> Archive:
        md5 = hashlib.md5(self.files[name]).hexdigest()
        return Archive(self.url(name), f"md5:{md5}", tuple(self.archive(part) for part in parts))


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = shelf.files.get(self.path.lstrip("/"))
            if shelf.codes and (code := shelf.codes.pop(0)):
                return self.send_error(code)
            if data is None:
                return self.send_error(404)
            tag = f'"{hashlib.md5(data).hexdigest()}"'
            asked, start = self.headers.get("Range"), 0
            if asked and self.headers.get("If-Range") == tag:
                shelf.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.end_headers()
                    return None
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(data) - start))
            for name, value in shelf.headers.items():
                self.send_header(name, value)
            self.end_headers()
            cut, shelf.cut_after = shelf.cut_after, None
            self.wfile.write(data[start:] if cut is None else data[start : start + cut])
            return None

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shelf.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield shelf
    server.shutdown()
    server.server_close()


def quiet(done: int, total: int, what: str) -> None:
    assert 0 <= done <= total


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def split(members: dict[str, bytes], sizes: tuple[int, ...], large: bool = False) -> list[bytes]:
    """A split ZIP archive as `zip -s` writes it: each entry names the part and the place in it; with `large`, in ZIP64 form."""
    starts, out, entries = [0], io.BytesIO(b""), []
    out.write(b"PK\x07\x08")
    bounds = [sum(sizes[: k + 1]) for k in range(len(sizes))]

    def part_of(place: int) -> int:
        return sum(place >= bound for bound in bounds)

    starts += bounds
    for name, data in members.items():
        place, crc = out.tell(), zipfile.crc32(data)  # type: ignore[attr-defined]
        disk = part_of(place)
        head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, crc, len(data), len(data), len(name), 0)
        out.write(head + name.encode() + data)
        at = place - starts[disk]
        extra = struct.pack("<2HQ", 1, 8, at) if large else b""
        entries.append(
            struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, crc, len(data), len(data), len(name),
                        len(extra), 0, disk, 0, 0, 0xFFFFFFFF if large else at) + name.encode() + extra
        )  # fmt: skip
    begin = out.tell()
    directory = b"".join(entries)
    disk, last, n = part_of(begin), part_of(begin + len(directory)), len(entries)
    assert disk == last == len(sizes), "the directory lies in the last part"
    out.write(directory)
    if large:
        at64 = out.tell() - starts[last]
        out.write(
            struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, last, disk, n, n, len(directory), begin - starts[disk])
        )
        out.write(struct.pack("<4sLQL", b"PK\x06\x07", last, at64, last + 1))
        out.write(struct.pack("<4s4H2LH", b"PK\x05\x06", last, disk, n, n, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    else:
        out.write(struct.pack("<4s4H2LH", b"PK\x05\x06", last, disk, n, n, len(directory), begin - starts[disk], 0))
    data = out.getvalue()
    return [data[a:b] for a, b in zip(starts, [*bounds, len(data)], strict=True)]


# -- downloading --------------------------------------------------------------------------------------------------


def test_an_interrupted_download_goes_on_where_it_stopped(shelf: Shelf, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    shelf.files["a.zip"], shelf.cut_after = data, 300_000
    fetch(shelf.url("a.zip"), tmp_path / "a.zip", shelf.archive("a.zip").checksum, quiet, pause=0)
    assert (tmp_path / "a.zip").read_bytes() == data
    assert shelf.ranges == ["bytes=300000-"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_a_part_of_an_older_version_is_thrown_away(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["a.zip"] = b"new" * 1000
    (tmp_path / "a.zip.part").write_bytes(b"old" * 500)
    (tmp_path / "a.zip.part.version").write_text('"old"')
    fetch(shelf.url("a.zip"), tmp_path / "a.zip", shelf.archive("a.zip").checksum, quiet, pause=0)
    assert (tmp_path / "a.zip").read_bytes() == shelf.files["a.zip"]


def test_a_part_that_is_whole_is_not_downloaded_again(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["a.zip"] = b"whole" * 1000
    (tmp_path / "a.zip.part").write_bytes(shelf.files["a.zip"])
    (tmp_path / "a.zip.part.version").write_text(f'"{hashlib.md5(shelf.files["a.zip"]).hexdigest()}"')
    fetch(shelf.url("a.zip"), tmp_path / "a.zip", shelf.archive("a.zip").checksum, quiet, pause=0)
    assert shelf.ranges == ["bytes=5000-"]


def test_a_server_that_fails_is_asked_again_and_given_up(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["a.zip"], shelf.codes = b"x" * 10, [503, 503]
    fetch(shelf.url("a.zip"), tmp_path / "a.zip", "", quiet, pause=0)
    shelf.files["b.zip"], shelf.codes = b"x" * 10, [503] * 9
    with pytest.raises(UserError, match=r"b.zip: the server answers 503 .* the same command goes on"):
        fetch(shelf.url("b.zip"), tmp_path / "b.zip", "", quiet, pause=0)
    shelf.codes = []
    with pytest.raises(UserError, match=r"no.zip: the server answers 404"):
        fetch(shelf.url("no.zip"), tmp_path / "no.zip", "", quiet, pause=0)


def test_what_is_not_what_was_published_is_removed(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["a.zip"] = b"changed"
    with pytest.raises(
        UserError, match=r"a.zip: the file is not what was published: its checksum is md5:\w+, expected md5:0"
    ):
        fetch(shelf.url("a.zip"), tmp_path / "a.zip", "md5:0", quiet, pause=0)
    assert list(tmp_path.iterdir()) == []
    shelf.headers["x-goog-hash"] = (
        "crc32c=AAAAAA==, md5=AAAAAAAAAAAAAAAAAAAAAA=="  # the server's own, where none is published
    )
    with pytest.raises(UserError, match=r"expected md5:00000000000000000000000000000000"):
        fetch(shelf.url("a.zip"), tmp_path / "a.zip", "", quiet, pause=0)


def test_a_disk_that_is_too_small(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.files["a.zip"] = b"x" * 100
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: SimpleNamespace(free=50))
    with pytest.raises(UserError, match=r"are needed in .*, 0.0 GB are free"):
        fetch(shelf.url("a.zip"), tmp_path / "a.zip", "", quiet, pause=0)


# -- unpacking ----------------------------------------------------------------------------------------------------


def tarred(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, 3 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (member("../out.wav"), r"the member '../out.wav' leads out of the folder: nothing was unpacked"),
        (member("/tmp/out.wav"), r"leads out of the folder"),
        (member("a/b", tarfile.SYMTYPE, "/etc"), r"'a/b' is a link or a device: nothing was unpacked"),
        (member("a/b", tarfile.LNKTYPE, "a/a"), r"is a link or a device"),
        (member("a/a"), r"'a/a' is there twice"),
    ],
)
def test_archives_that_mean_harm(tmp_path: Path, found: tarfile.TarInfo, message: str) -> None:
    folder = tmp_path / "set"
    with pytest.raises(UserError, match=message):
        unpack(tarred(tmp_path / "x.tar.gz", member("a/a"), found), folder, quiet)
    assert list(folder.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "x.tar.gz"]


def test_a_zip_that_is_damaged_encrypted_or_far_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    whole = zipped({"a/b.txt": b"hello" * 100})
    path.write_bytes(whole[:-30])
    with pytest.raises(UserError, match=r"x.zip: the archive cannot be unpacked: File is not a zip file"):
        unpack(path, tmp_path / "set", quiet)
    path.write_bytes(whole.replace(b"hello", b"hallo", 1) if b"hello" in whole else whole[:40] + b"\xff" + whole[41:])
    with pytest.raises(UserError, match=r"the archive cannot be unpacked"):
        unpack(path, tmp_path / "set", quiet)
    path.write_bytes(zipped({"a.txt": bytes(10**6)}))
    monkeypatch.setattr("audio_cls.data.getting.unpacking._AT_LEAST", 1000)
    with pytest.raises(UserError, match=r"holds far more data than one of its size should"):
        unpack(path, tmp_path / "set", quiet)


@pytest.mark.parametrize("large", [False, True])
def test_a_split_zip_is_read_in_place(tmp_path: Path, large: bool) -> None:
    members = {f"FSD50K.eval_audio/{i}.wav": bytes([i]) * 400 for i in range(6)}  # some lie across two parts
    paths = [tmp_path / name for name in ("x.z01", "x.z02", "x.zip")]
    for path, data in zip(paths, split(members, (1000, 1100), large), strict=True):
        path.write_bytes(data)
    with open_split_zip(paths) as file:
        assert {name: file.read(name) for name in file.namelist()} == members
        assert file.testzip() is None
    with pytest.raises(zipfile.BadZipFile, match="the archive has 3 parts, 2 were given"):
        open_split_zip(paths[1:])
    with pytest.raises(UserError, match="is not the last part of a ZIP archive"):
        unpack(paths[0].rename(tmp_path / "y.zip"), tmp_path / "set", quiet, parts=[paths[1]])


# -- the whole way ------------------------------------------------------------------------------------------------


def test_get_downloads_joins_and_unpacks(shelf: Shelf, tmp_path: Path) -> None:
    root = layouts.fsd50k(tmp_path / "published")
    tree = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    audio = {name: data for name, data in tree.items() if "dev_audio" in name}
    shelf.files["rest.zip"] = zipped({name: data for name, data in tree.items() if name not in audio})
    size = sum(map(len, audio.values()))
    for name, data in zip(("audio.z01", "audio.z02", "audio.zip"), split(audio, (size // 3, size // 3)), strict=True):
        shelf.files[name] = data
    made = DataSet(
        "set", "CC0", "page", ".", (shelf.archive("rest.zip"), shelf.archive("audio.zip", "audio.z01", "audio.z02"))
    )
    assert get(made, tmp_path / "set", quiet) == tmp_path / "set"
    assert {p.relative_to(tmp_path / "set").as_posix() for p in (tmp_path / "set").rglob("*.*") if p.is_file() and ".archives" not in p.parts} == set(tree)  # fmt: skip
    assert len(sources.read(tmp_path / "set")) == 6
    shelf.files.clear()  # what is there is not asked for again
    get(made, tmp_path / "set", quiet)
    assert {p.suffix for p in (tmp_path / "set" / ".archives").iterdir()} == {".done"}


def test_data_get_says_what_there_is(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for found in CATALOGUE.values():
        assert all(a.checksum or "storage.googleapis.com" in a.url for a in found.archives)
        assert found.archives or found.ask
    with pytest.raises(
        UserError, match=r"GTZAN is not downloaded for you: .*ask its author.*Licence: none was published"
    ):
        find_data_set("gtzan")
    with pytest.raises(UserError, match=r"no data set 'esc5'. Allowed: .*Did you mean 'esc50'"):
        find_data_set("esc5")
    root = layouts.speech_commands(tmp_path / "published")
    tree = {f"top/{p.relative_to(root).as_posix()}": p.read_bytes() for p in root.rglob("*") if p.is_file()}
    shelf.files["s.zip"] = zipped(tree)
    made = DataSet("Tiny", "CC0", "https://example.org", "top", (shelf.archive("s.zip"),), size="1 kB")
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", made)
    monkeypatch.chdir(tmp_path)
    assert "Next: audio-cls data prepare data/tiny/top --name NAME" in call(capsys, tmp_path, "data", "get", "tiny")
    assert "ask its author" in call(capsys, tmp_path, "data", "get", "gtzan", code=2)
