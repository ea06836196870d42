"""Sequences of vectors from SequenceExample messages in TFRecord files, such as AudioSet's published embeddings.

The message types are those of TensorFlow's example.proto, declared here, so that protobuf alone reads them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from audio_cls.core.payload import QUANTISED_PCA, Payload
from audio_cls.data.audio import BadAudio, file_size
from audio_cls.data.codecs.base import Codec, Part, Reader, Rows
from audio_cls.data.codecs.tfrecord import BrokenRecord, read_record

__all__ = ["SequenceExamples", "parse", "parse_context", "serialise"]

Values = dict[str, list[Any]]


class SequenceExamples(Codec, kind="sequence_example"):
    """One clip a record of a TFRecord file: a SequenceExample with a feature list of vectors, one a row.

    A clip's position is the byte at which its record begins. The defaults are AudioSet's VGGish embeddings: 128 values a
    second, PCA, quantised to bytes: value = byte * 4 / 255 + 4 / 512 - 2.
    """

    feature: str = "audio_embedding"
    """The feature list that holds the vectors."""
    n_values: Annotated[int, Field(ge=1, le=1 << 20)] = 128
    """Values of a vector."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """Of the values: uint8 where a vector is a string of bytes, float32 where it is a list of numbers."""
    rows_per_second: Annotated[float, Field(gt=0)] = 1.0
    """Vectors a second."""
    scale: float = 4 / 255
    """value = scale * stored + offset."""
    offset: float = 4 / 512 - 2
    """value = scale * stored + offset."""
    values: str = QUANTISED_PCA
    """What the values are; what makes no sense for quantised PCA is refused later."""

    def payload(self, sample_rate: int | None) -> Payload:
        return Payload(
            "sequence", self.dtype, (self.n_values,), self.rows_per_second, self.scale, self.offset, self.values
        )

    def open(self, path: Path) -> Reader:
        file_size(path)
        return _Reader(self, open(path, "rb"))


class _Reader:
    def __init__(self, codec: SequenceExamples, file: BinaryIO) -> None:
        self.codec, self.file = codec, file

    def close(self) -> None:
        self.file.close()

    def read(self, part: Part) -> Rows:
        codec, offset = self.codec, part.position or 0
        self.file.seek(offset)
        try:
            data = read_record(self.file)
            if data is None:
                raise BrokenRecord("the file ends before it")
            _, lists = parse(data)
        except BrokenRecord as error:
            raise BadAudio(f"the record at byte {offset:,}: {error}") from None
        if codec.feature not in lists:
            raise BadAudio(f"the record at byte {offset:,} has no feature list {codec.feature!r}: {_listed(lists)}")
        values = _stack(codec, offset, lists[codec.feature])
        if part.max_seconds is not None:
            values = values[: max(1, math.floor(part.max_seconds * codec.rows_per_second + 0.5))]
        return Rows(values, {})


def _stack(codec: SequenceExamples, offset: int, vectors: list[list[Any]]) -> NDArray[Any]:
    """Return (rows, n_values) of the stored type."""
    if codec.dtype == "uint8" and vectors and all(_holds(vector, codec.n_values) for vector in vectors):
        return np.frombuffer(b"".join(vector[0] for vector in vectors), np.uint8).reshape(-1, codec.n_values)
    rows = []
    for k, vector in enumerate(vectors, start=1):
        if codec.dtype == "uint8":  # one of them is not as it should be
            found = len(vector[0]) if len(vector) == 1 and isinstance(vector[0], bytes) else 0
            row = np.frombuffer(vector[0], np.uint8) if _holds(vector, codec.n_values) else None
        else:
            whole, found = len(vector) == codec.n_values and isinstance(vector[0], float), len(vector)
            row = np.asarray(vector, "<f4") if whole else None
            if row is not None and not np.isfinite(row).all():
                raise BadAudio(f"the record at byte {offset:,}, row {k}: holds values that are not finite numbers")
        if row is None:
            unit = "bytes" if codec.dtype == "uint8" else "numbers"
            raise BadAudio(f"the record at byte {offset:,}, row {k}: {found} {unit}, expected {codec.n_values}")
        rows.append(row)
    if not rows:
        raise BadAudio(f"empty: the record at byte {offset:,} has no rows in {codec.feature!r}")
    return np.stack(rows)


def _holds(vector: list[Any], n_bytes: int) -> bool:
    return len(vector) == 1 and isinstance(vector[0], bytes) and len(vector[0]) == n_bytes


def parse(data: bytes) -> tuple[Values, dict[str, list[list[Any]]]]:
    """Return the context and the feature lists of a serialised SequenceExample: bytes, floats and whole numbers by name.

    Raises:
        BrokenRecord: for bytes that are none.
    """
    example = _parsed(data)
    context = {name: _values(feature) for name, feature in example.context.feature.items()}
    lists = {name: [_values(f) for f in found.feature] for name, found in example.feature_lists.feature_list.items()}
    return context, lists


def parse_context(data: bytes) -> Values:
    """Return the context of a serialised SequenceExample, without its feature lists.

    Raises:
        BrokenRecord: for bytes that are none.
    """
    return {name: _values(feature) for name, feature in _parsed(data).context.feature.items()}


def _parsed(data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    example = _message()()
    try:
        example.ParseFromString(data)
    except DecodeError:
        raise BrokenRecord("its data is no SequenceExample") from None
    return example


def serialise(context: Values, lists: dict[str, list[list[Any]]]) -> bytes:
    """Return a SequenceExample as bytes, the same for the same values: what `parse` reads."""
    example = _message()()
    for name, values in context.items():
        _fill(example.context.feature[name], values)
    for name, vectors in lists.items():
        found = example.feature_lists.feature_list[name]
        for vector in vectors:
            _fill(found.feature.add(), vector)
    return bytes(example.SerializeToString(deterministic=True))


def _values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return [] if kind is None else list(getattr(feature, kind).value)


def _fill(feature: Any, values: list[Any]) -> None:
    kinds = {bytes: "bytes_list", float: "float_list", int: "int64_list"}
    for value in values:
        getattr(feature, kinds[type(value)]).value.append(value)


def _listed(lists: dict[str, Any]) -> str:
    return f"it has {', '.join(sorted(lists))}" if lists else "it has none"


@lru_cache(maxsize=1)
def _message() -> Any:
    """Return the class SequenceExample, made from a description of its fields (name: type, number)."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def message(name: str) -> Any:
        return file.message_type.add(name=name)

    def field(owner: Any, name: str, number: int, kind: int, of: str = "", many: bool = False) -> Any:
        label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
        type_name = f".tensorflow.{of}" if of else None
        return owner.field.add(name=name, number=number, type=kind, label=label, type_name=type_name)

    def mapping(owner: Any, name: str, entry: str, of: str) -> None:
        pair = owner.nested_type.add(name=entry)
        pair.options.map_entry = True
        field(pair, "key", 1, kinds.TYPE_STRING)
        field(pair, "value", 2, kinds.TYPE_MESSAGE, of)
        field(owner, name, 1, kinds.TYPE_MESSAGE, f"{owner.name}.{entry}", many=True)

    values = {"BytesList": kinds.TYPE_BYTES, "FloatList": kinds.TYPE_FLOAT, "Int64List": kinds.TYPE_INT64}
    for name, kind in values.items():
        field(message(name), "value", 1, kind, many=True)
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(values, start=1):
        one = field(feature, name.replace("List", "_list").lower(), number, kinds.TYPE_MESSAGE, name)
        one.oneof_index = 0
    mapping(message("Features"), "feature", "FeatureEntry", "Feature")
    field(message("FeatureList"), "feature", 1, kinds.TYPE_MESSAGE, "Feature", many=True)
    mapping(message("FeatureLists"), "feature_list", "FeatureListEntry", "FeatureList")
    example = message("SequenceExample")
    field(example, "context", 1, kinds.TYPE_MESSAGE, "Features")
    field(example, "feature_lists", 2, kinds.TYPE_MESSAGE, "FeatureLists")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.SequenceExample"))
