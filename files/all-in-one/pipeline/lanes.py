"""Two lanes for the inferences of a process: bulk work never keeps a query waiting, and neither queue grows for ever.

Each lane has a thread per granted core and hands them one sequence at a time, the jobs in it taking turns. Threads of
the bulk lane run at the lowest priority: a query gets the cores at once, bulk work what is left of them.
"""

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import AbandonedError, OverloadedError
from pipeline.threads import available_threads

LaneName = Literal["query", "bulk"]

LOWEST_PRIORITY = 19  # a nice value: about a seventieth of the weight of 0
IDLE = 5.0  # seconds after which a thread without work ends
# How fast the past fades from the measured speed, per sequence: the last twenty or so count.
FADING = 0.95
SEQUENCE = 512  # tokens: what a job takes in one turn at most


@dataclass(frozen=True)
class Limits:
    """Of one lane: jobs and tokens in it at most, and the longest predicted wait (seconds) with which one is let in."""

    jobs: int = 10_000
    tokens: int = 100_000_000
    wait: float = math.inf


class Job:
    """Sequences that belong together, in a lane. Made by `Lane.job`."""

    def __init__(self, lane: "Lane", tokens: int, turn: int, gone: Callable[[], bool] | None) -> None:
        self.tokens_left = tokens
        self.turn = turn  # tokens of one sequence, about
        self.gone = gone or (lambda: False)
        self.work: Callable[[int], int] = lambda _: 0
        self.until = math.inf  # time.monotonic() seconds: what has not begun by then is left out
        self.cores = 1  # that a sequence has to itself
        self.waiting: deque[int] = deque()
        self.running = 0
        self.error: BaseException | None = None
        self.done = threading.Event()
        self._lane = lane

    @property
    def lane(self) -> LaneName:
        return self._lane.name

    @property
    def alone(self) -> bool:
        """True while nothing else is in its lane."""
        return self._lane.count == 1

    @property
    def late(self) -> bool:
        return time.monotonic() >= self.until

    def resize(self, tokens: int) -> None:
        """Replace the estimate of the tokens that are left, now that they are counted."""
        self._lane.resize(self, tokens)

    def each(self, work: Callable[[int], int], order: Sequence[int], *, until: float | None = None) -> None:
        """Call `work(i)`, which returns the tokens it took, for every i in `order`, spread over the lane's threads.

        What is not begun at `until` (time.monotonic() seconds) is left out. The first error is raised once what was
        begun has ended; nothing is begun after it. AbandonedError once nobody waits for the result any more.
        """
        self.work, self.until = work, math.inf if until is None else until
        if order and not self.late:
            self._lane.run(self, order)
        if self.error:
            raise self.error


class Lane:
    """Jobs that take turns, sequence by sequence, on at most `threads` threads."""

    def __init__(self, name: LaneName, threads: int, limits: Limits, *, priority: int | None = None) -> None:
        """`priority` is the nice value of its threads; None leaves them that of the process."""
        self.name = name
        self.threads = threads
        self.limits = limits
        self._priority = priority
        # Guards everything here and in the jobs; told when there is something to begin.
        self._changed = threading.Condition()
        self._jobs: set[Job] = set()
        self._turns: deque[Job] = deque()  # those with a sequence to begin
        self._workers = self._idle = 0
        self._running = 0  # sequences, never more than there are threads
        self._recent_tokens = self._recent_seconds = 0.0

    @contextmanager
    def job(
        self, tokens: int, *, sequences: int | None = None, gone: Callable[[], bool] | None = None
    ) -> Iterator[Job]:
        """Room for a job of about so many tokens; `gone()` turns true when nobody waits for its result any more.

        Without the number of `sequences` that these are in, each is taken for as long as they get.
        OverloadedError when the lane is full or the predicted wait is too long.
        """
        turn = min(SEQUENCE, math.ceil(tokens / sequences)) if sequences else SEQUENCE
        job = Job(self, tokens, turn, gone)
        with self._changed:
            self._admit(job)
        try:
            yield job
        finally:
            with self._changed:
                self._jobs.remove(job)

    @property
    def count(self) -> int:
        """Jobs that are here."""
        return len(self._jobs)

    def state(self) -> dict[str, Any]:
        """{"jobs", "running", "tokens", "tokens_per_second", "seconds"} of work now; `running` are sequences.

        The speed is None before it was measured.
        """
        with self._changed:
            speed, tokens = self._speed(), self._tokens()
            return {
                "jobs": len(self._jobs),
                "running": self._running,
                "tokens": tokens,
                "tokens_per_second": round(speed) if speed else None,
                "seconds": round(self._seconds(tokens), 2),
            }

    def resize(self, job: Job, tokens: int) -> None:
        with self._changed:
            job.tokens_left = tokens

    def run(self, job: Job, order: Sequence[int]) -> None:
        """Run `job.work` for each of `order` that begins in time; `job.error` says what stopped it."""
        job.done.clear()
        with self._changed:
            # A single sequence that need not wait gains nothing from another thread.
            here = len(order) == 1 and self._priority is None and not self._turns and self._running < self.threads
            if here:
                self._begin(job)
            else:
                self._queue(job, order)
        if here:
            self._run_one(job, order[0])
        if not job.done.wait(min(job.until - time.monotonic(), threading.TIMEOUT_MAX)):
            # Waiting for turns, only to find each too late, could take seconds.
            with self._changed:
                self._leave_out(job)
            job.done.wait()

    def _queue(self, job: Job, order: Sequence[int]) -> None:
        job.waiting.extend(order)
        self._turns.append(job)
        waiting = sum(len(other.waiting) for other in self._turns)
        for _ in range(min(self.threads - self._workers, waiting - self._idle)):
            try:
                threading.Thread(target=self._work, name=f"{self.name}-lane", daemon=True).start()
            except RuntimeError:  # the container has as many as it may have: those of this lane have to do
                if self._workers:
                    break
                self._leave_out(job)
                raise
            self._workers += 1
        self._changed.notify(len(order))

    def _admit(self, job: Job) -> None:
        """Take a job in, or refuse it and say when there will be room: when what is here has shrunk enough."""
        limits, here = self.limits, len(self._jobs)
        # Jobs take turns: each of the others gets at most as far as this one, or one turn, before this one is done.
        ahead = sum(min(other.tokens_left, max(job.tokens_left, other.turn)) for other in self._jobs)
        excess = [
            self._seconds(ahead) - limits.wait,
            self._seconds(self._tokens() + job.tokens_left - limits.tokens) if here else 0.0,
            self._seconds(self._tokens()) / here if here >= limits.jobs else 0.0,
        ]
        if here >= limits.jobs or max(excess) > 0:
            raise OverloadedError(
                f"{here} requests with {self._tokens()} tokens are at work, for {self._seconds(self._tokens()):.1f} s.",
                retry_after=max(1, math.ceil(max(excess))),
            )
        self._jobs.add(job)

    def _tokens(self) -> int:
        return sum(job.tokens_left for job in self._jobs)

    def _speed(self) -> float:
        """Tokens per second of all threads together; 0 while unknown."""
        return self.threads * self._recent_tokens / self._recent_seconds if self._recent_seconds else 0.0

    def _seconds(self, tokens: int) -> float:
        """How long so many tokens take; without a measurement nothing is predicted."""
        speed = self._speed()
        return tokens / speed if speed else 0.0

    def _work(self) -> None:
        """A thread of this lane, until it has been idle for a while."""
        if self._priority is not None:
            # Linux keeps a nice value for each thread, and a thread may always raise its own.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._priority)
        while taken := self._take():
            self._run_one(*taken)

    def _take(self) -> tuple[Job, int] | None:
        """The next sequence of the job whose turn it is; None when this thread is to end."""
        with self._changed:
            while True:
                while self._turns and self._running < self.threads:
                    job = self._turns.popleft()
                    if job.gone():
                        job.error = job.error or AbandonedError()
                    if job.error or job.late:
                        job.waiting.clear()
                        self._tell_if_over(job)
                        continue
                    index = job.waiting.popleft()
                    if job.waiting:
                        self._turns.append(job)
                    self._begin(job)
                    return job, index
                self._idle += 1
                told = self._changed.wait(IDLE)
                self._idle -= 1
                if not told and not self._turns:
                    self._workers -= 1
                    return None

    def _run_one(self, job: Job, index: int) -> None:
        """Run a sequence that has begun."""
        try:
            if job.gone():
                raise AbandonedError
            started = time.monotonic()
            tokens = job.work(index)
            self._measure(job, tokens, (time.monotonic() - started) * job.cores)
        except BaseException as error:
            job.error = job.error or error
        finally:
            self._end(job)

    def _measure(self, job: Job, tokens: int, seconds: float) -> None:
        """Count tokens that took so many seconds of a core."""
        with self._changed:
            job.tokens_left -= min(tokens, job.tokens_left)
            if tokens:
                self._recent_tokens = self._recent_tokens * FADING + tokens
                self._recent_seconds = self._recent_seconds * FADING + seconds

    def _leave_out(self, job: Job) -> None:
        """What a job has not begun."""
        if job.waiting:
            job.waiting.clear()
            self._turns.remove(job)
        self._tell_if_over(job)

    def _begin(self, job: Job) -> None:
        job.running += 1
        self._running += 1

    def _end(self, job: Job) -> None:
        with self._changed:
            job.running -= 1
            self._running -= 1
            self._tell_if_over(job)
            if self._turns:
                self._changed.notify()

    def _tell_if_over(self, job: Job) -> None:
        if not job.waiting and not job.running:
            job.done.set()


class Lanes:
    """The two lanes of a process, shared by all its models."""

    def __init__(self, threads: int | None = None, *, query: Limits | None = None, bulk: Limits | None = None) -> None:
        """`threads` in each lane; default: as many as the scheduler and the cgroup grant."""
        self.threads = threads or available_threads()
        self.query = Lane("query", self.threads, query or Limits())
        self.bulk = Lane("bulk", self.threads, bulk or Limits(), priority=LOWEST_PRIORITY)

    def named(self, name: LaneName) -> Lane:
        return self.query if name == "query" else self.bulk


_default: list[Lanes] = []
_guard = threading.Lock()


def default_lanes() -> Lanes:
    """The lanes of models that were given none: one pair a process."""
    with _guard:
        if not _default:
            _default.append(Lanes())
        return _default[0]
