"""Who runs when: turns within a lane, queries beside bulk work, and what happens when there is no room."""

import os
import threading
import time
from contextlib import ExitStack
from functools import partial

import pytest
from busy import at_work
from waiting import eventually

from pipeline import lanes
from pipeline.errors import AbandonedError, OverloadedError
from pipeline.lanes import LOWEST_PRIORITY, Job, Lane, Lanes, Limits


def has_waiting(lane: Lane, jobs: int) -> bool:
    return len(lane._turns) == jobs


def run_one(job: Job, tokens: int, seconds: float) -> None:
    """A sequence of so many tokens that takes as long: the lane's speed is known afterwards."""

    def work(_: int) -> int:
        time.sleep(seconds)
        return tokens

    job.each(work, [0])


def test_every_sequence_runs_once() -> None:
    seen: list[int] = []

    def work(index: int) -> int:
        seen.append(index)
        return 1

    with Lanes(3).bulk.job(200) as job:
        job.each(work, range(200))
    assert sorted(seen) == list(range(200))


def test_no_more_sequences_than_threads_run_at_once_however_they_come() -> None:
    running, most, ran, guard = [0], [0], [0], threading.Lock()

    def work(_: int) -> int:
        with guard:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002)
        with guard:
            running[0] -= 1
            ran[0] += 1
        return 1

    lane = Lanes(2).query

    def run(sequences: int, times: int) -> None:
        for _ in range(times):
            with lane.job(sequences) as job:
                job.each(work, range(sequences))

    jobs = [(50, 1), (1, 50), (1, 50), (1, 50)]
    threads = [threading.Thread(target=run, args=arguments, daemon=True) for arguments in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert (most[0], ran[0]) == (2, 200)


def test_single_sequences_take_turns_with_longer_jobs_in_the_order_in_which_they_came() -> None:
    lane = Lanes(1).query
    order: list[str] = []

    def run(name: str, sequences: int) -> None:
        def work(_: int) -> int:
            order.append(name)
            return 1

        with lane.job(sequences) as job:
            job.each(work, range(sequences))

    threads = [threading.Thread(target=run, args=arguments) for arguments in (("long", 3), ("a", 1), ("b", 1))]
    with at_work(lane, 1) as go_on:
        for count, thread in enumerate(threads, start=1):
            thread.start()
            eventually(partial(has_waiting, lane, count), 20)
        go_on.set()
        for thread in threads:
            thread.join(30)
    assert order == ["long", "a", "b", "long", "long"]


def test_a_query_runs_while_bulk_work_has_every_thread() -> None:
    both = Lanes(2)
    with at_work(both.bulk, 100):
        seen: list[int] = []

        def work(index: int) -> int:
            seen.append(index)
            return 1

        with both.query.job(3) as job:
            job.each(work, range(3))
        with both.query.job(1) as job:
            job.each(work, [3])
        assert sorted(seen) == [0, 1, 2, 3]


def test_bulk_threads_have_the_lowest_priority_and_queries_the_process_own() -> None:
    both = Lanes(1)
    for lane, expected in ((both.bulk, LOWEST_PRIORITY), (both.query, os.getpriority(os.PRIO_PROCESS, 0))):
        found: list[int] = []

        def work(_: int, found: list[int] = found) -> int:
            found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return 1

        with lane.job(2) as job:
            job.each(work, range(2))
        assert found == [expected, expected]


def test_jobs_of_a_lane_take_turns() -> None:
    bulk = Lanes(1).bulk
    order: list[str] = []

    def run(name: str) -> None:
        def work(_: int) -> int:
            order.append(name)
            return 1

        with bulk.job(5) as job:
            job.each(work, range(5))

    with at_work(bulk, 1):
        threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        eventually(partial(has_waiting, bulk, 2), 20)
    for thread in threads:
        thread.join(30)
    assert "".join(order) in ("ababababab", "bababababa")


def test_what_is_not_begun_in_time_is_left_out_without_waiting_for_its_turns() -> None:
    lane = Lanes(1).query
    begun: list[int] = []

    def work(index: int) -> int:
        begun.append(index)
        return 1

    with at_work(lane, 20), lane.job(10) as job:
        until = time.monotonic() + 0.2
        job.each(work, range(10), until=until)
        assert until <= time.monotonic() < until + 10
        job.each(work, range(10), until=until)  # it is past
        assert begun == []
    with lane.job(2) as job:
        job.each(work, range(2), until=time.monotonic() + 30)
    assert begun == [0, 1]


def test_what_is_begun_in_time_is_finished() -> None:
    done: list[int] = []
    until = time.monotonic() + 1

    def work(index: int) -> int:
        eventually(lambda: time.monotonic() > until, 20)
        done.append(index)
        return 1

    with Lanes(1).query.job(3) as job:
        job.each(work, range(3), until=until)
    assert done == [0]


@pytest.mark.parametrize("sequences", [1, 3])
def test_a_lane_goes_on_after_an_error(sequences: int) -> None:
    lane = Lanes(1).query
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), lane.job(sequences) as job:
            job.each(lambda index: 1 // (index - index), range(sequences))
    with pytest.raises(TypeError), lane.job(sequences) as job:
        job.each(lambda _: "not a number of tokens", range(sequences))  # type: ignore[arg-type, return-value]
    with pytest.raises(AbandonedError), lane.job(sequences, gone=lambda: True) as job:
        job.each(lambda _: 1, range(sequences))
    with lane.job(2) as job:
        job.each(lambda _: 1, range(2))
    assert lane.state()["running"] == 0


def test_a_lane_that_may_have_no_further_thread_does_with_those_it_has() -> None:
    lane, ran = Lanes(2).query, [0]
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def first_only(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    def work(_: int) -> int:
        ran[0] += 1
        return 1

    with pytest.MonkeyPatch.context() as patch, lane.job(4) as job:
        patch.setattr(threading.Thread, "start", first_only)
        job.each(work, range(4))
    assert ran == [4]


def test_a_sequence_that_has_all_cores_counts_for_all_of_them() -> None:
    one, all_of_them = Lanes(2).query, Lanes(2).query
    with one.job(100) as job:
        run_one(job, 100, 0.1)
    with all_of_them.job(100) as job:
        job.cores = 2
        run_one(job, 100, 0.1)
    speeds = [lane.state()["tokens_per_second"] for lane in (one, all_of_them)]
    assert speeds[0] / speeds[1] == pytest.approx(2, rel=0.5)


def test_a_lane_without_any_thread_says_so_and_works_again_once_it_may_have_one() -> None:
    lane = Lanes(1).query

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError), lane.job(2) as job:
        patch.setattr(threading.Thread, "start", refuse)
        job.each(lambda _: 1, range(2))
    with lane.job(2) as job:
        job.each(lambda _: 1, range(2))


def test_the_first_error_is_raised_and_nothing_is_begun_after_it() -> None:
    bulk = Lanes(1).bulk
    seen: list[int] = []

    def work(index: int) -> int:
        seen.append(index)
        if index == 2:
            raise ValueError("the third")
        return 1

    with pytest.raises(ValueError, match="the third"), bulk.job(10) as job:
        job.each(work, range(10))
    assert seen == [0, 1, 2]
    assert bulk.state()["tokens"] == 0
    assert bulk.count == 0


@pytest.mark.parametrize("name", ["query", "bulk"])
def test_work_that_nobody_waits_for_is_dropped(name: lanes.LaneName) -> None:
    lane = Lanes(1).named(name)
    gone = threading.Event()
    seen: list[int] = []

    def work(index: int) -> int:
        seen.append(index)
        if index == 1:
            gone.set()
        return 1

    with pytest.raises(AbandonedError), lane.job(10, gone=gone.is_set) as job:
        job.each(work, range(10))
    with pytest.raises(AbandonedError), lane.job(1, gone=gone.is_set) as job:
        job.each(work, [5])
    assert seen == [0, 1]
    assert lane.state()["tokens"] == 0


def test_too_many_jobs_are_refused_and_let_in_later() -> None:
    bulk = Lanes(1, bulk=Limits(jobs=2)).bulk
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(bulk.job(10))
        with pytest.raises(OverloadedError, match=r"2 requests with 20 tokens") as refusal, bulk.job(1):
            pass
        assert refusal.value.retry_after >= 1
    with bulk.job(1):
        assert bulk.count == 1


def test_too_many_tokens_are_refused_but_a_lane_without_work_takes_any_job() -> None:
    bulk = Lanes(1, bulk=Limits(tokens=100)).bulk
    with bulk.job(1) as job:
        run_one(job, 1, 0.01)
    with bulk.job(1000):
        with pytest.raises(OverloadedError), bulk.job(1):
            pass
        assert bulk.count == 1


def test_the_retry_time_is_when_the_wait_is_short_enough_again() -> None:
    """Work for 5 seconds is there, and 2 are allowed: 3 more have to pass."""
    bulk = Lanes(1, bulk=Limits(wait=2.0)).bulk
    with bulk.job(1000) as job:
        run_one(job, 1000, 0.1)
    speed = bulk.state()["tokens_per_second"]
    assert speed
    with bulk.job(5 * speed):
        with pytest.raises(OverloadedError, match=r"for 5\.\d s") as refusal, bulk.job(5 * speed):
            pass
        assert refusal.value.retry_after in (3, 4)
        assert bulk.state()["seconds"] == pytest.approx(5, abs=0.2)


def test_a_short_job_is_let_in_beside_a_long_one_since_they_take_turns() -> None:
    bulk = Lanes(1, bulk=Limits(wait=2.0)).bulk
    with bulk.job(10_000) as job:
        run_one(job, 10_000, 0.1)
    with bulk.job(10_000_000), bulk.job(10):
        assert bulk.count == 2


def test_a_question_is_let_in_beside_many_jobs_of_short_sequences() -> None:
    """As where several searches are being reranked: a pair of each is ahead of it, not the longest that there are."""
    query = Lanes(1).query
    with query.job(1000) as job:
        run_one(job, 1000, 1.0)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(query.job(20 * 60, sequences=20))
        query.limits = Limits(wait=2.0)
        with query.job(15):
            assert query.count == 9
        query.limits = Limits()
        for _ in range(4):
            stack.enter_context(query.job(4 * 512, sequences=4))
        query.limits = Limits(wait=2.0)
        with pytest.raises(OverloadedError), query.job(15):
            pass


def test_counted_tokens_replace_the_estimate() -> None:
    bulk = Lanes(1).bulk
    with bulk.job(1000) as job:
        job.resize(3)
        assert bulk.state()["tokens"] == 3
        job.each(lambda _: 1, range(2))
        assert bulk.state()["tokens"] == 1
    assert bulk.state()["tokens"] == 0


def test_threads_without_work_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "IDLE", 0.05)
    bulk = Lanes(2).bulk
    for _ in range(2):  # a lane wakes up again
        with bulk.job(4) as job:
            job.each(lambda _: 1, range(4))
        deadline = time.monotonic() + 10
        while bulk._workers:
            assert time.monotonic() < deadline
            time.sleep(0.01)
