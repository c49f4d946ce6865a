"""Small sums over measured values."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the values lie, by nearest rank. ValueError without values."""
    if not values:
        raise ValueError("a percentile of no values: nothing was measured")
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """{count, p50_ms, p95_ms} of durations in seconds."""
    return {
        "count": len(seconds),
        "p50_ms": round(percentile(seconds, 0.5) * 1000, 2),
        "p95_ms": round(percentile(seconds, 0.95) * 1000, 2),
    }


def speed(count: int, seconds: Sequence[float], cpu_seconds: Sequence[float]) -> dict[str, float]:
    """Texts per second and CPU seconds per 1,000 texts over rounds of `count` texts; the median round counts."""
    return {
        "texts_per_s": round(count / statistics.median(seconds), 2),
        "slowest": round(count / max(seconds), 2),
        "fastest": round(count / min(seconds), 2),
        "cpu_s_per_1000": round(statistics.median(cpu_seconds) / count * 1000, 2),
    }


def cosines(found: Array, reference: Array) -> dict[str, float]:
    """{mean, min} cosine of the rows of two arrays [n, dim]."""
    found, reference = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
    values = (found * reference).sum(axis=1) / lengths
    return {"mean": round(float(values.mean()), 5), "min": round(float(values.min()), 5)}


def difference(found: Array, expected: Array) -> float:
    """The largest difference between two arrays; exactly 0.0 only where all bits agree (but for the sign of zero)."""
    return float(np.max(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64))))
