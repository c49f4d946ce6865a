"""Whether the reranker judges the candidates of a search, how many of them, and what the answer says about it."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from app.models import Loaded, describe
from app.settings import Margin, Mode
from app.waiting import gone
from pipeline.errors import OverloadedError
from pipeline.reranker import Reranker


@dataclass(frozen=True)
class Judgement:
    """`scores` in the order of the candidates, None for those not judged; `report` is what /search says about it.

    Its `reason` is a word for programs (off, unavailable, too_few, margin, overloaded, deadline, asked), its `why` a
    sentence for people.
    """

    scores: list[float | None]
    report: dict[str, Any]


class Reranking:
    """Off, or for the first `top_k` candidates of a search and at most `deadline` seconds."""

    def __init__(self, *, top_k: int, deadline: float, margins: Iterable[Margin] = ()) -> None:
        self.top_k = top_k
        self._deadline = deadline
        self._margins = {(margin.reranker, margin.embedding): margin.least for margin in margins}

    def judge(self, loaded: Loaded, mode: Mode, query: str, texts: Sequence[str], lead: float | None) -> Judgement:
        """Scores of the first `top_k` texts, which are in the fused order.

        `lead` is by how much the first is ahead of the second, None where that order is not the one margins are for.
        """
        started = time.monotonic()
        texts = texts[: self.top_k]
        if refusal := _reason_not_to(loaded, mode, texts):
            return _unjudged(mode, *refusal, texts)
        assert loaded.reranker is not None
        count, reason, why = len(texts), "asked", "asked for"
        if mode == "auto":
            count, reason, why = self._choose(loaded, loaded.reranker, query, texts, lead)
            if not count:
                return _unjudged(mode, reason, why, texts)
        deadline = started + self._deadline
        try:
            scores = loaded.reranker.score(query, texts[:count], deadline=deadline, lane="query", gone=gone())
        except OverloadedError as error:
            return _unjudged(mode, "overloaded", f"overloaded: {error}", texts)
        judged = sum(score is not None for score in scores)
        if not judged:
            return _unjudged(mode, "deadline", "the deadline passed before the first pair", texts)
        if judged < count:
            reason = "deadline"
            why += f"; the deadline passed after {judged} of {count} candidates, the rest keeps its order"
        report = {"mode": mode, "ran": True, "reason": reason, "why": why, "candidates": judged}
        return Judgement([*scores, *[None] * (len(texts) - count)], report)

    def _choose(
        self, loaded: Loaded, reranker: Reranker, query: str, texts: Sequence[str], lead: float | None
    ) -> tuple[int, str, str]:
        """(how many to judge, reason, why). Fewer than two are none: there is nothing to order."""
        least = self._margins.get((describe(reranker)["name"], describe(loaded.embedder)["name"]))
        if lead is None:
            why = "margins are for words and vectors together: always, within the deadline"
        elif least is None:
            why = "no margin is set for these models: always, within the deadline"
        elif lead >= least:
            return 0, "margin", f"the first result leads by {lead:.3f}, the margin is {least:.3f}"
        else:
            why = f"the first results are {lead:.3f} apart, the margin is {least:.3f}"
        count = reranker.fitting(query, texts, self._deadline)
        if count < 2:
            return (
                0,
                "deadline",
                f"as fast as it goes now, not even two candidates fit into {self._deadline * 1000:.0f} ms",
            )
        if count < len(texts):
            return count, "deadline", f"{why}; {count} of {len(texts)} candidates fit the deadline"
        return count, "asked", why


def _reason_not_to(loaded: Loaded, mode: Mode, texts: Sequence[str]) -> tuple[str, str] | None:
    if mode == "off":
        return "off", "not asked for"
    if loaded.reranker is None:
        return "unavailable", f"reranking is off. {loaded.reranker_degraded}"
    if len(texts) < 2:
        return "too_few", f"{len(texts)} candidates leave nothing to order"
    return None


def _unjudged(mode: Mode, reason: str, why: str, texts: Sequence[str]) -> Judgement:
    report = {"mode": mode, "ran": False, "reason": reason, "why": why, "candidates": 0}
    return Judgement([None] * len(texts), report)
