"""How far two models agree, in plain numbers."""

from typing import Any

import numpy as np


def cosines(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Cosine of each row of `left` with the same row of `right`: [n, d], [n, d] -> [n]."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    result: np.ndarray[Any, Any] = (left * right).sum(axis=1) / lengths
    return result


def top_overlap(reference: np.ndarray[Any, Any], other: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """Share of each row's k best columns that both score matrices have in common: [n, m], [n, m] -> [n]."""
    k = min(k, reference.shape[1])
    best, other_best = _best(reference, k), _best(other, k)
    return np.array([len(set(a) & set(b)) / k for a, b in zip(best.tolist(), other_best.tolist(), strict=True)])


def top1_agreement(reference: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """1.0 for each row whose best column is the same, else 0.0: [n, m], [n, m] -> [n]."""
    result: np.ndarray[Any, Any] = (reference.argmax(axis=1) == other.argmax(axis=1)).astype(np.float64)
    return result


def spearman(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    """Rank correlation of two lists of numbers, ties sharing their mean rank; 0.0 when one of them is constant."""
    ranks_left, ranks_right = _ranks(left.ravel()), _ranks(right.ravel())
    if ranks_left.std() == 0 or ranks_right.std() == 0:
        return 0.0
    return float(np.corrcoef(ranks_left, ranks_right)[0, 1])


def sigmoid(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return result


def bootstrap_interval(values: np.ndarray[Any, Any], *, rounds: int = 2000, seed: int = 7) -> tuple[float, float]:
    """95 % interval of the mean of `values`, by resampling them with replacement (percentile bootstrap)."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (rounds, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def worst_group(values: np.ndarray[Any, Any], groups: list[str]) -> float:
    """The lowest mean of `values` over any single group (a language, say)."""
    names = np.array(groups)
    return min(float(values[names == name].mean()) for name in sorted(set(groups)))


def _best(scores: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean_rank: np.ndarray[Any, Any] = last - (count - 1) / 2.0
    result: np.ndarray[Any, Any] = mean_rank[group]
    return result
