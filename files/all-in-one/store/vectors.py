"""Vectors on their way to the database, and from it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, np.dtype[np.float32]]  # one vector a row


def vector_text(vector: Sequence[float]) -> str:
    """pgvector's text form; nine digits keep a float32 as it is."""
    form = ",".join(["%.9g"] * len(vector))  # in one go: a search waits for it
    return f"[{form % tuple(vector)}]"


def received(sent: Sequence[bytes], dimension: int) -> Matrix:
    """[rows, dimension] float32 from what pgvector's vector_send gives.

    That is two 16-bit integers, the dimension and an unused one, and then the values, high byte first
    (src/vector.c of pgvector).
    """
    row = np.dtype([("header", ">i2", 2), ("values", ">f4", dimension)])
    return np.frombuffer(b"".join(sent), row)["values"].astype(np.float32)
