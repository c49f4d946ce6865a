"""The time that each stage of an answer takes."""

import time


class Stages:
    """Laps, one after the other, which together are the whole."""

    def __init__(self) -> None:
        self._started = self._lap = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """What has passed since the last lap was this stage, or some more of it."""
        now = time.perf_counter()
        self._laps[name] = self._laps.get(name, 0.0) + (now - self._lap) * 1000
        self._lap = now

    def finish(self) -> dict[str, float]:
        """{stage: milliseconds}, and `total`."""
        laps = {name: round(milliseconds, 2) for name, milliseconds in self._laps.items()}
        return laps | {"total": round((self._lap - self._started) * 1000, 2)}
