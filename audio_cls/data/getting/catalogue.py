"""The data sets that `data get` knows: their pages, licences, archives and checksums."""

from __future__ import annotations

from dataclasses import dataclass

from audio_cls.core.errors import UserError, choose

__all__ = ["CATALOGUE", "Archive", "DataSet", "find_data_set"]


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        url: where it is.
        checksum: "md5:..." or "sha256:..." as its publisher names it; empty where none is published (the server's own is used).
        parts: further files of a split ZIP archive, the first part first; `url` is then its last part.
    """

    url: str
    checksum: str = ""
    parts: tuple[Archive, ...] = ()

    @property
    def name(self) -> str:
        return self.url.partition("?")[0].rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    Attributes:
        title, licence, page: as published.
        folder: the folder of the unpacked data set, for `data prepare`.
        archives: what is downloaded; none for a data set that must be asked for.
        ask: where and how to ask, for a data set without archives.
        size: of the download, in words.
    """

    title: str
    licence: str
    page: str
    folder: str
    archives: tuple[Archive, ...] = ()
    ask: str = ""
    size: str = ""


def find_data_set(name: str) -> DataSet:
    """Return a data set of the catalogue.

    Raises:
        UserError: for an unknown name, and one that cannot be downloaded: says where it is to be asked for.
    """
    found = choose(CATALOGUE, name, f"data set {name!r}")
    if not found.archives:
        raise UserError(
            f"{found.title} is not downloaded for you: {found.ask} Licence: {found.licence}. See {found.page}"
        )
    return found


def _zenodo(record: str, name: str, md5: str, parts: tuple[Archive, ...] = ()) -> Archive:
    return Archive(f"https://zenodo.org/records/{record}/files/{name}", f"md5:{md5}", parts)


def _fsd(name: str, md5: str, *parts: Archive) -> Archive:
    return _zenodo("4060432", f"FSD50K.{name}", md5, parts)


def _tut(md5s: dict[str, str], record: str, part: str) -> tuple[Archive, ...]:
    return tuple(_zenodo(record, f"TUT-acoustic-scenes-2017-{part}.{name}.zip", md5) for name, md5 in md5s.items())


_STORAGE = "https://storage.googleapis.com"

CATALOGUE = {
    "esc50": DataSet(
        "ESC-50",
        "CC BY-NC 3.0 (ESC-10: CC BY 3.0)",
        "https://github.com/karolpiczak/ESC-50",
        "ESC-50-master",
        (Archive("https://github.com/karolpiczak/ESC-50/archive/master.zip", "md5:7771e4b9d86d0945acce719c7a59305a"),),
        size="0.6 GB",
    ),
    "urbansound8k": DataSet(
        "UrbanSound8K",
        "CC BY-NC 3.0",
        "https://urbansounddataset.weebly.com/urbansound8k.html",
        "UrbanSound8K",
        (_zenodo("1203745", "UrbanSound8K.tar.gz", "9aa69802bbf37fb986f71ec1483a196e"),),
        size="6 GB",
    ),
    "fsd50k": DataSet(
        "FSD50K",
        "CC BY 4.0; each clip has its own: CC0, CC BY, CC BY-NC or CC Sampling+",
        "https://zenodo.org/records/4060432",
        ".",
        (
            _fsd("ground_truth.zip", "ca27382c195e37d2269c4c866dd73485"),
            _fsd("metadata.zip", "b9ea0c829a411c1d42adb9da539ed237"),
            _fsd(
                "eval_audio.zip",
                "6fa47636c3a3ad5c7dfeba99f2637982",
                _fsd("eval_audio.z01", "3090670eaeecc013ca1ff84fe4442aeb"),
            ),
            _fsd(
                "dev_audio.zip",
                "c480d119b8f7a7e32fdb58f3ea4d6c5a",
                _fsd("dev_audio.z01", "faa7cf4cc076fc34a44a479a5ed862a3"),
                _fsd("dev_audio.z02", "8f9b66153e68571164fb1315d00bc7bc"),
                _fsd("dev_audio.z03", "1196ef47d267a993d30fa98af54b7159"),
                _fsd("dev_audio.z04", "d088ac4e11ba53daf9f7574c11cccac9"),
                _fsd("dev_audio.z05", "81356521aa159accd3c35de22da28c7f"),
            ),
        ),
        size="25 GB",
    ),
    "tut2017": DataSet(
        "TUT Acoustic Scenes 2017, development set",
        "of its own, for non-commercial use (LICENSE in its documentation)",
        "https://zenodo.org/records/400515",
        "TUT-acoustic-scenes-2017-development",
        _tut(
            {
                "meta": "9007fd4772d816590c5db5f5e9568f5d",
                "error": "802c700b021769e52a2c1e3b9c117a1b",
                "doc": "2065495aaf3f1103e795c9899e2af1df",
                "audio.1": "251325a9afaaad0326ad1c57f57d514a",
                "audio.2": "c26861e05147dc319b4250eb103d9d99",
                "audio.3": "a4815775f8a5e629179726ee4cd4f55a",
                "audio.4": "1732b03afe8c53ef8bba80ba14766e57",
                "audio.5": "611be754a0c951185c6ae4b7643c19a0",
                "audio.6": "165a201db800d3ea76fce5a9c2bd97d7",
                "audio.7": "c7d79db84264401c0f8680dcc36013ad",
                "audio.8": "35043f25123439392338c790494c7a19",
                "audio.9": "0805dcf5d8e6871dc9610182b2efb93a",
                "audio.10": "5df83a191295a04e290b125c634e13e7",
            },
            "400515",
            "development",
        ),
        size="11 GB",
    ),
    "tut2017-evaluation": DataSet(
        "TUT Acoustic Scenes 2017, evaluation set",
        "of its own, for non-commercial use (LICENSE in its documentation)",
        "https://zenodo.org/records/1040168",
        "TUT-acoustic-scenes-2017-evaluation",
        _tut(
            {
                "meta": "e006cfec14a49dd79a6ab8f8d5b1c5e6",
                "doc": "47bbdc0614b468d2bfadbc49e561a320",
                "audio.1": "5d97dea8461baec8027ae4a0c2b18d4b",
                "audio.2": "4085ef5fa286f2169074993a4e405953",
                "audio.3": "cac432579e7cf2dff0aec7aaed248956",
                "audio.4": "664bf09c3d24bd26c6b587f1d709de36",
            },
            "1040168",
            "evaluation",
        ),
        size="3.6 GB",
    ),
    "speech_commands": DataSet(
        "Speech Commands 0.02",
        "CC BY 4.0",
        "https://arxiv.org/abs/1804.03209",
        ".",
        (
            Archive(
                f"{_STORAGE}/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
                "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
            ),
        ),
        size="2.4 GB",
    ),
    "audioset": DataSet(
        "AudioSet, VGGish embeddings",
        "CC BY 4.0",
        "https://research.google.com/audioset/download.html",
        ".",
        (
            Archive(f"{_STORAGE}/us_audioset/youtube_corpus/v1/csv/class_labels_indices.csv"),
            Archive(f"{_STORAGE}/us_audioset/youtube_corpus/v1/features/features.tar.gz"),
        ),
        size="2.4 GB",
    ),
    "gtzan": DataSet(
        "GTZAN",
        "none was published: the recordings are under copyright",
        "http://marsyas.info/downloads/datasets.html",
        "genres",
        ask="its own page no longer offers it, and no licence allows copies; ask its author (G. Tzanetakis, University of Victoria).",
    ),
}
"""The data sets by name."""
