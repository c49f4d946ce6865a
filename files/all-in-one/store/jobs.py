"""The life of an item: claimed under a lease, renewed, then done, released, or parked. Workers may die at any point."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from store.connection import Database
from store.statements import statement

FAILURES_SHOWN = 1000  # as many as one request may bring documents


@dataclass(frozen=True)
class Item:
    """A claimed item with the document's content at the time of the claim."""

    id: int
    generation_id: int
    attempts: int
    content_hash: bytes
    document_id: str
    title: str
    text: str


def claim(
    database: Database, worker: str, *, lease_seconds: float, max_attempts: int, without: Collection[int] = ()
) -> Item | None:
    """The next item, now leased to `worker`, its attempt counted before any work is done. None if nothing waits.

    What the serving generation lacks goes first, then what is missing in the one that is built, then in the kept ones;
    generations of `without` are left alone.
    Items whose lease ran out are first queued again, or parked once they have used up `max_attempts`.
    """
    with database.transaction():
        database.execute(statement("expire_leases"), {"max_attempts": max_attempts})
        for generation in database.execute(statement("queue_order"), {"without": list(without)}).fetchall():
            wanted = {"worker": worker, "lease": lease_seconds, "generation": generation["id"]}
            if row := database.execute(statement("claim_item"), wanted).fetchone():
                return Item(**row)
    return None


def renew(database: Database, item_id: int, worker: str, *, lease_seconds: float) -> bool:
    """Extend the lease. False if the item is no longer this worker's: it was taken over, replaced or deleted."""
    renewed = database.execute(
        "UPDATE items SET lease_until = now() + make_interval(secs => %s)"
        " WHERE id = %s AND worker = %s AND state = 'running'",
        [lease_seconds, item_id, worker],
    )
    return renewed.rowcount == 1


def release(database: Database, item_id: int, worker: str) -> None:
    """Give an item back unharmed: the worker was told to stop. The attempt does not count."""
    database.execute(
        "UPDATE items SET state = 'queued', worker = NULL, lease_until = NULL, attempts = attempts - 1"
        " WHERE id = %s AND worker = %s AND state = 'running'",
        [item_id, worker],
    )


def release_held(database: Database, worker: str) -> int:
    """Give back, as `release` does, all that this worker holds; how many. For one that lost its database meanwhile."""
    return database.execute(
        "UPDATE items SET state = 'queued', worker = NULL, lease_until = NULL, attempts = attempts - 1"
        " WHERE worker = %s AND state = 'running'",
        [worker],
    ).rowcount


def fail(database: Database, item_id: int, worker: str, reason: str, *, max_attempts: int, retry_seconds: float) -> str:
    """Record a failed attempt: queued again after `retry_seconds`, or parked with the reason. Returns the new state."""
    row = database.execute(
        statement("fail_item"),
        {"id": item_id, "worker": worker, "reason": reason, "max_attempts": max_attempts, "retry": retry_seconds},
    ).fetchone()
    return str(row["state"]) if row else "superseded"


def status(database: Database, job_id: UUID) -> dict[str, Any] | None:
    """How far a job is, None if there is none.

    `status` is queued, running, done or failed; `done` counts the documents that need nothing more, the `unchanged`
    ones included; `error` is a sentence about those that were given up, listed in `failures`. `refused` lists what
    was never accepted, by its line in the stream it came in.
    """
    job = database.execute(statement("job_status"), {"job": job_id}).fetchone()
    if job is None:
        return None
    failures = database.execute(statement("job_failures"), {"job": job_id, "most": FAILURES_SHOWN}).fetchall()
    refused = database.execute(statement("job_refusals"), {"job": job_id, "most": FAILURES_SHOWN}).fetchall()
    waiting = job["queued"] + job["running"]
    done = job["documents"] - waiting - job["parked"]
    error = None
    if failures:
        error = f"{job['parked']} of {job['documents']} documents were given up, the first: {failures[0]['reason']}"
    return {
        "job": str(job["id"]),
        "status": _state(waiting=waiting, begun=job["running"] + done > job["unchanged"], parked=job["parked"]),
        "documents": job["documents"],
        "done": done,
        "unchanged": job["unchanged"],
        "error": error,
        "failures": failures,
        "refused": refused,
        "created_at": job["created_at"],
    }


def queue(database: Database) -> dict[str, Any]:
    """{queued, running, parked, oldest_seconds}: what the serving generation waits for, and for how long."""
    row = database.execute(statement("queue_depth")).fetchone()
    assert row is not None
    return row


def parked(database: Database, *, after: int, limit: int) -> list[dict[str, Any]]:
    """Items that were given up, oldest first, from the one behind `after`, each with its reason."""
    return database.execute(statement("parked_items"), {"after": after, "limit": limit}).fetchall()


def requeue(database: Database, documents: Sequence[str] | None = None) -> int:
    """Queue parked items again, with all their attempts: those of the named documents, or every one. How many."""
    wanted = {"documents": list(documents) if documents is not None else None}
    with database.transaction():
        # Before any item: a migration locks the table first, and many items then.
        database.execute("LOCK TABLE documents IN ROW EXCLUSIVE MODE")
        return database.execute(statement("requeue_items"), wanted).rowcount


def _state(*, waiting: int, begun: bool, parked: int) -> str:
    if waiting:
        return "running" if begun else "queued"
    return "failed" if parked else "done"
