"""How well each candidate answers a query."""

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipeline.engine import Engine
from pipeline.errors import ModelError
from pipeline.fallback import overlap_scores
from pipeline.lanes import LaneName, Lanes
from pipeline.manifest import ModelFolder, read_folder
from pipeline.tokens import TextTokenizer, TokenSequence

# Pairs with as many characters altogether are a query's work, a second or so; more is bulk work.
QUERY_CHARACTERS = 40_000
CHARACTERS_PER_TOKEN = 3  # about, in Korean and English together
# How fast pairs went is believed for so many seconds: loads change, and what is not tried again stays slow for ever.
PACE_KEPT = 60.0
FADING = 0.95  # per pair: the last twenty or so count


class Reranker:
    """A cross-encoder from an ONNX folder; a score is the sigmoid of its logit.

    Without arguments RERANK_ONNX_PATH (a file) or RERANK_ONNX_DIR says where the model is. Only RERANK_FALLBACK=overlap
    allows word overlap in its place; `degraded` then says why, otherwise it is None.
    """

    def __init__(
        self, onnx_dir: str | Path | None = None, *, threads: int | None = None, lanes: Lanes | None = None
    ) -> None:
        """`lanes` are shared with other models; alone, the model gets lanes of `threads` threads or the process's."""
        self.degraded: str | None = None
        self.folder: ModelFolder | None = None
        self._pace = _Pace()
        self.release_id = ""
        try:
            self.folder = read_folder(onnx_dir or _configured_path(), "reranker", os.environ.get("RERANK_MODEL", ""))
            self._load(self.folder, lanes or (Lanes(threads) if threads else None))
        except ModelError as error:
            if os.environ.get("RERANK_FALLBACK") != "overlap":
                raise
            self.folder = None
            self.degraded = f"Scores are word overlap, as RERANK_FALLBACK asks: {error}"

    def _load(self, folder: ModelFolder, lanes: Lanes | None) -> None:
        self._tokens = TextTokenizer(folder.tokenizer_file, folder.max_length)
        self.engine = Engine(folder.file, output=folder.output, lanes=lanes)
        self.release_id = folder.release_id
        self._logit(self._tokens.pair(self._tokens.query(""), ""))

    def rerank(self, query: str, candidates: Sequence[str]) -> list[dict[str, Any]]:
        """[{"idx": position in `candidates`, "score": 0..1}], best first; equal scores keep the caller's order."""
        return in_order(self.score(query, candidates))

    def score(
        self,
        query: str,
        candidates: Sequence[str],
        *,
        deadline: float | None = None,
        lane: LaneName | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> list[float | None]:
        """Scores in the order of `candidates`. Pairs not begun at `deadline` (time.monotonic() seconds) get None.

        `lane` is chosen by the work unless it is given. OverloadedError when there is no room for it; AbandonedError
        once `gone()`.
        """
        logits = self.logits(query, candidates, deadline=deadline, lane=lane, gone=gone)
        return [None if logit is None else _sigmoid(logit) for logit in logits]

    def logits(
        self,
        query: str,
        candidates: Sequence[str],
        *,
        deadline: float | None = None,
        lane: LaneName | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> list[float | None]:
        """As `score`, before the sigmoid."""
        if isinstance(candidates, str):
            raise TypeError("candidates is a list of texts; wrap a single text in a list.")
        if self.folder is None:
            return [_logit_of(score) for score in overlap_scores(query, candidates)]
        encoded_query = self._tokens.query(query)
        logits: list[float | None] = [None] * len(candidates)

        def judge(index: int) -> int:
            started = time.monotonic()
            sequence = self._tokens.pair(encoded_query, candidates[index])
            logits[index] = self._logit(sequence)
            if chosen == "query":  # bulk work tells how fast it is let go, not how fast it could
                self._pace.add(self._estimate(query, candidates[index]), time.monotonic() - started)
            return len(sequence.ids)

        characters = sum(len(query) + len(candidate) for candidate in candidates)
        chosen = lane or ("query" if characters <= QUERY_CHARACTERS else "bulk")
        most = self._tokens.max_length * len(candidates)
        tokens, pairs = min(most, characters // CHARACTERS_PER_TOKEN), len(candidates)
        with self.engine.lanes.named(chosen).job(tokens, sequences=pairs, gone=gone) as job:
            job.each(judge, range(pairs), until=deadline)
        return logits

    def fitting(self, query: str, candidates: Sequence[str], seconds: float) -> int:
        """How many of `candidates`, from the first, the query lane judges in `seconds` from now.

        Predicted from how fast pairs went lately and from the work that waits; all of them while that is not known.
        """
        per_token = self._pace.seconds_per_token()
        if self.folder is None or per_token is None:
            return len(candidates)
        lane = self.engine.lanes.query
        left = (seconds - lane.state()["seconds"]) * lane.threads
        needed = accumulate(per_token * self._estimate(query, candidate) for candidate in candidates)
        return sum(until <= left for until in needed)

    def _estimate(self, query: str, candidate: str) -> int:
        """Tokens of a pair, about."""
        return min(self._tokens.max_length, max(1, (len(query) + len(candidate)) // CHARACTERS_PER_TOKEN))

    def _logit(self, sequence: TokenSequence) -> float:
        assert self.folder is not None
        output = self.engine.run(sequence.ids, sequence.type_ids).reshape(-1)
        if output.size != 1:
            raise ModelError(
                f"{self.folder.file}: gives {output.size} values per pair where a reranker gives 1 logit. "
                "Export it for text classification, from a model with one label."
            )
        logit = float(output[0])
        if not math.isfinite(logit):
            raise ModelError(f"{self.folder.file}: gave a logit that is not finite. Build the model again.")
        return logit


class _Pace:
    """How fast pairs went lately, whatever thread judged them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tokens = self._seconds = 0.0
        self._measured = float("-inf")

    def add(self, tokens: int, seconds: float) -> None:
        with self._guard:
            now = time.monotonic()
            fading = FADING if now - self._measured < PACE_KEPT else 0.0
            self._tokens = self._tokens * fading + tokens
            self._seconds = self._seconds * fading + seconds
            self._measured = now

    def seconds_per_token(self) -> float | None:
        """None where nothing was measured lately."""
        with self._guard:
            return self._seconds / self._tokens if time.monotonic() - self._measured < PACE_KEPT else None


def in_order(scores: Sequence[float | None]) -> list[dict[str, Any]]:
    """Scores as `Reranker.rerank` gives them, best first."""
    order = sorted(range(len(scores)), key=lambda i: -(scores[i] or 0.0))
    return [{"idx": index, "score": scores[index]} for index in order]


def _sigmoid(logit: float) -> float:
    """In float64, outside the graph: a low-precision sigmoid makes ties of confident scores."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))


def _logit_of(score: float) -> float:
    score = min(max(score, 1e-9), 1.0 - 1e-9)
    return math.log(score / (1.0 - score))


def _configured_path() -> str:
    path = os.environ.get("RERANK_ONNX_PATH") or os.environ.get("RERANK_ONNX_DIR")
    if not path:
        raise ModelError("No reranker is configured: set RERANK_ONNX_DIR (a folder) or RERANK_ONNX_PATH (a file).")
    return path
