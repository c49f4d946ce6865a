"""Documents that a writer keeps changing, clients that keep searching, and what the box should hold in the end."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException

import outside
from outside import call

CORPUS = outside.ROOT / "demo" / "corpus"
SENTENCES = 2  # of one document
REQUEST = 500  # documents
THINKING = 0.2  # seconds between an answer and the client's next search


class Shop:
    """What was given to the box: {id: text}. Every text has a code of its own, to be found by."""

    def __init__(self, key: str, seed: int) -> None:
        self._key = key
        self._random = random.Random(seed)
        lines = (CORPUS / "passages.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        self._sentences = [sentence.strip() for text in texts for sentence in text.split(". ") if len(sentence) > 20]
        self._codes = itertools.count(1)
        self.texts: dict[str, str] = {}

    def fill(self, count: int) -> None:
        """Let the box hold `count` documents and nothing else, and wait until they are indexed."""
        while found := call("/documents?limit=1000", key=self._key)[1]["documents"]:
            for document in found:
                call(f"/documents/{document['id']}", key=self._key, method="DELETE")
        self.texts |= {f"base-{number:04d}": self._text() for number in range(count)}
        names = list(self.texts)
        for start in range(0, count, REQUEST):
            self._put(names[start : start + REQUEST])
        settle(self._key, 600)

    def write(self) -> None:
        """Add a document, change one and delete one."""
        new = f"new-{next(self._codes):05d}"
        changed, gone = self._random.sample(sorted(self.texts), 2)
        self.texts[new], self.texts[changed] = self._text(), self._text()
        self._put([new, changed])
        status, body = call(f"/documents/{gone}", key=self._key, method="DELETE")
        assert status in (200, 204), body
        del self.texts[gone]

    def code(self, name: str) -> str:
        """What finds this document and no other."""
        return self.texts[name].rsplit(" ", 1)[1]

    def _text(self) -> str:
        sentences = self._random.sample(self._sentences, SENTENCES)
        return f"{'. '.join(sentences)}. ZX-{next(self._codes):06d}"

    def _put(self, names: list[str]) -> None:
        body = [{"id": name, "title": name, "text": self.texts[name]} for name in names]
        status, answer = call("/documents", body, self._key)
        assert status == 202, answer


@dataclass
class Found:
    """One search: when it was sent and answered (time.monotonic()), and by which generation and release."""

    sent: float
    answered: float
    generation: int
    release: str

    @property
    def seconds(self) -> float:
        return self.answered - self.sent


@dataclass
class Traffic:
    """What clients and writer saw until now."""

    found: list[Found] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    writes: int = 0

    def between(self, start: float, end: float) -> list[float]:
        """Seconds of the searches sent in this time."""
        return [one.seconds for one in self.found if start <= one.sent < end]

    def mixed(self) -> list[str]:
        """Answers by a model that is not the generation's, and those that fell back behind a switch."""
        releases: dict[int, set[str]] = {}
        for one in self.found:
            releases.setdefault(one.generation, set()).add(one.release)
        wrong = [f"generation {number} by {names}" for number, names in releases.items() if len(names) > 1]
        seen = sorted(self.found, key=lambda one: one.answered)
        for before, after in itertools.pairwise(seen):
            switched = before.generation != after.generation
            if switched and any(one.sent > after.answered and one.generation == before.generation for one in seen):
                wrong.append(f"generation {before.generation} answered after {after.generation} had taken over")
        return wrong


@contextmanager
def traffic(key: str, shop: Shop, queries: list[str], clients: int = 4, pause: float = 0.5) -> Iterator[Traffic]:
    """Clients that search, read and search again, and one writer, until the block ends."""
    seen, done, guard = Traffic(), threading.Event(), threading.Lock()

    def client(number: int) -> None:
        for query in itertools.cycle(queries[number:] + queries[:number]):
            if done.is_set():
                return
            sent = time.monotonic()
            try:
                status, body = call("/search", {"query": query, "top_k": 5, "rerank": "off"}, key)
                assert status == 200 and body["results"], (status, body)
            except (AssertionError, OSError, HTTPException) as error:
                with guard:
                    seen.failed.append(f"{time.strftime('%H:%M:%S')} {error}")
                continue
            found = Found(sent, time.monotonic(), body["generation"], body["models"]["embedding"])
            with guard:
                seen.found.append(found)
            time.sleep(THINKING)

    def writer() -> None:
        while not done.wait(pause):
            try:
                shop.write()
                seen.writes += 1
            except (AssertionError, OSError, HTTPException) as error:
                with guard:
                    seen.failed.append(f"{time.strftime('%H:%M:%S')} writer: {error}")

    threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
    threads.append(threading.Thread(target=writer))
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join()


def settle(key: str, seconds: float) -> None:
    """Until nothing is queued and no switch is under way."""
    deadline = time.monotonic() + seconds
    while True:
        status, health = call("/health", key=key)
        if status == 200 and health.get("queue"):
            coming = health["generations"]["next"]
            waiting = health["queue"]["queued"] + health["queue"]["running"]
            if not waiting and (coming is None or coming["state"] == "refused"):
                return
        assert time.monotonic() < deadline, health
        time.sleep(0.5)
