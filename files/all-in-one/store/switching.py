"""Which generation is to serve: what the operator wants, against what there is. The rows are the truth.

    nothing -> building -> ready -> active -> retired -> dropped
               building -> refused            retired -> building or ready

`want` says what is wanted, at each deployment. A worker builds, proves (worker/gate.py) and calls `accept` or `refuse`.
The app loads the model of a generation that is ready and calls `activate`. One that has served is kept in step, to go
back to, until there are too many of them (`prune`) or somebody drops it (`drop`).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.errors import DeadlockDetected
from psycopg.types.json import Jsonb

from store import generations
from store.connection import Database
from store.errors import StoreError
from store.generations import Generation, Index
from store.statements import statement

RECENT = 120.0  # seconds over which the speed of a build is measured
TRIES = 5  # of dropping tables that a worker writes to


@dataclass(frozen=True)
class Outcome:
    """What was done, in words."""

    changed: bool
    done: str


def keep_limit(environment: Mapping[str, str] = os.environ) -> int:
    """How many generations that have served are kept, from STORE_KEEP_GENERATIONS; 1 if it is not set. StoreError."""
    value = environment.get("STORE_KEEP_GENERATIONS") or "1"
    if not value.isascii() or not value.isdigit() or int(value) > 10:
        raise StoreError(f"STORE_KEEP_GENERATIONS is {value!r}; write a whole number from 0 to 10.")
    return int(value)


def want(database: Database, wanted: Index) -> Outcome:
    """Let the index become what is wanted: at once where nothing has to be computed, else by what the worker does.

    The same again changes nothing, and says how far it is. What was wanted before and does not serve yet is given up.
    """
    with database.transaction():
        _lock(database)
        found = generations.active(database)
        if found is None:
            return Outcome(True, f"created generation {_create_active(database, wanted).id}")
        if generations.count_documents(database) == 0:
            return _without_documents(database, found, wanted)
        recut = _recut(database, wanted)
        outcome = _same_space(database, found, wanted) if found.holds(wanted) else _other_space(database, found, wanted)
        if recut:
            return Outcome(True, f"{outcome.done}, queued {recut} documents to be cut and analysed again")
        return outcome


def accept(database: Database, generation: Generation, figures: Mapping[str, Any]) -> bool:
    """Let the app serve a generation whose gate passed. False if it is not being built any more."""
    return _judge(database, generation, "ready", None, figures)


def refuse(
    database: Database, generation: Generation, why: str, figures: Mapping[str, Any] | None = None, *, state: str
) -> bool:
    """Stay on the one that serves, and record why. False if the generation is not in `state` any more."""
    return _judge(database, generation, "refused", why, figures, before=state)


def stall(database: Database, generation: Generation, why: str | None) -> None:
    """Record why a generation does not get on; None once it does."""
    database.execute(
        "UPDATE generations SET why = %(why)s WHERE id = %(id)s AND why IS DISTINCT FROM %(why)s"
        " AND (state IN ('building', 'ready', 'retired') OR wanted_release IS NOT NULL)",
        {"why": why, "id": generation.id},
    )


def activate(database: Database, generation: Generation) -> bool:
    """Let a generation that is ready serve from now on; the one that served is kept.

    False, and nothing changed, while it lacks a document that is found today, or if it is not ready any more.
    """
    with database.transaction():
        database.execute("LOCK TABLE active_generation IN SHARE ROW EXCLUSIVE MODE")
        serving = generations.serving(database)
        # No result is stored meanwhile: what one generation holds now, the other holds too. Documents may come, whose
        # items refer to these rows.
        database.execute(
            "SELECT FROM generations WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [[serving.id, generation.id]]
        )
        now = generations.find(database, generation.id)
        if now is None or now.state != "ready" or _lags(database, serving, now):
            return False
        database.execute("UPDATE active_generation SET generation_id = %s, activated_at = now()", [now.id])
        database.execute(
            "UPDATE generations SET state = 'retired', retired_at = now(), wanted_release = NULL WHERE id = %s",
            [serving.id],
        )
        database.execute("UPDATE generations SET state = 'active', why = NULL WHERE id = %s", [now.id])
        database.execute(statement("move_jobs"), {"before": serving.id, "now": now.id})
        return True


def adopt(database: Database, generation: Generation, figures: Mapping[str, Any]) -> bool:
    """Let the wanted release of the serving generation compute its vectors from now on. False if it is not wanted."""
    done = database.execute(
        "UPDATE generations SET release = wanted_release, wanted_release = NULL, why = NULL, gate = %s"
        " WHERE id = %s AND wanted_release = %s AND state = 'active'",
        [Jsonb(dict(figures)), generation.id, generation.wanted_release],
    )
    return done.rowcount == 1


def rebuild(database: Database, generation: Generation, why: str) -> bool:
    """Build a generation with the wanted release of the serving one, whose vectors did not agree. False if not wanted.

    `why` is recorded with the one that is built.
    """
    with database.transaction():
        _lock(database)
        now = generations.find(database, generation.id)
        if now is None or now.state != "active" or not now.wanted_release:
            return False
        if now.wanted_release != generation.wanted_release or generations.upcoming(database):
            return False
        _want_release(database, now, None)
        index = Index(now.space, now.dimension, now.wanted_release, now.chunker, now.analyser)
        built, _ = _start(database, index)
        stall(database, built, why)
        return True


def prune(database: Database, keep: int) -> list[int]:
    """Drop kept generations but the `keep` that served last; their ids."""

    def oldest() -> Generation | None:
        row = database.execute(
            "SELECT id FROM generations WHERE state = 'retired' ORDER BY retired_at DESC, id DESC OFFSET %s LIMIT 1",
            [keep],
        ).fetchone()
        return generations.get(database, row["id"]) if row else None

    dropped: list[int] = []
    while one := _drop(database, oldest):
        dropped.append(one.id)
    return dropped


def drop(database: Database, generation_id: int) -> None:
    """Remove a generation that does not serve. StoreError for the one that does, and for one that there is not."""

    def named() -> Generation:
        generation = generations.get(database, generation_id)
        if generation.state == "active":
            raise StoreError(
                f"Generation {generation_id} serves; switch to another embedding model before it is dropped."
            )
        return generation

    _drop(database, named)


def retry(database: Database) -> Outcome:
    """Build a refused generation on, and let its gate judge it again."""
    with database.transaction():
        _lock(database)
        found = generations.upcoming(database)
        if found is None or found.state != "refused":
            return Outcome(False, "no generation is refused")
        queued = _queue_missing(database, found)
        _set_state(database, found, "building")
        return Outcome(True, f"building generation {found.id} on, queued {queued} documents")


def status(database: Database) -> dict[str, Any]:
    """{serving, next, kept}: each {id, state, release, dimension, documents, done, chunks}; next also {percent,
    seconds_left, parked, why, gate, summary} and None when nothing else is wanted.

    `documents` are all there are, `done` those that the generation holds as they are now. `state` of next is building,
    ready or refused, or comparing: then it is the serving one, whose wanted release is compared with its vectors.
    `seconds_left` is None while nothing tells the speed. `summary` says it all in words for an operator.
    """
    every = generations.every(database)
    serving = next((one for one in every if one.state == "active"), None)
    return {
        "serving": _described(database, serving) if serving else None,
        "next": following(database),
        "kept": [_described(database, one) for one in every if one.state == "retired"],
    }


def following(database: Database) -> dict[str, Any] | None:
    """What `status` tells as next, without counting what the other generations hold."""
    serving, coming = generations.active(database), generations.upcoming(database)
    if serving is None:
        return None
    found = _upcoming(database, coming) if coming else _compared(database, serving)
    return found | {"summary": _summary(found, serving)} if found else None


def count_behind(database: Database, serving: Generation, generation: Generation) -> int:
    """Documents that the serving generation holds as they are now, and the other does not."""
    row = database.execute(statement("count_behind"), {"serving": serving.id, "generation": generation.id}).fetchone()
    assert row is not None
    return int(row["behind"])


def is_open(database: Database, generation: Generation) -> bool:
    """Whether a document is queued for a generation, or at work."""
    row = database.execute(
        "SELECT EXISTS (SELECT FROM items WHERE generation_id = %s AND state IN ('queued', 'running')) AS open",
        [generation.id],
    ).fetchone()
    assert row is not None
    return bool(row["open"])


def first_given_up(database: Database, generation: Generation) -> str | None:
    """Why the first document that a generation could not take was given up, None without any."""
    row = database.execute(
        "SELECT document_id, reason FROM items WHERE generation_id = %s AND state = 'parked' ORDER BY id LIMIT 1",
        [generation.id],
    ).fetchone()
    return f"{row['document_id']}: {row['reason']}" if row else None


def _lock(database: Database) -> None:
    """Nobody adds a document in between; a submit that waits here queues its items for what there is afterwards.

    Nor does anybody judge a generation or store a result: what is read from now on stays true.
    """
    database.execute("LOCK TABLE active_generation, documents IN SHARE ROW EXCLUSIVE MODE")
    database.execute("SELECT FROM generations ORDER BY id FOR NO KEY UPDATE")


def _drop(database: Database, choose: Callable[[], Generation | None]) -> Generation | None:
    """Remove the generation that `choose` names once everything is locked; which, None if there is none to remove."""
    for tried in range(1, TRIES + 1):
        try:
            with database.transaction():
                _lock(database)
                if generation := choose():
                    generations.drop(database, generation)
            return generation
        except DeadlockDetected:
            if tried == TRIES:
                raise
    return None


def _create_active(database: Database, wanted: Index) -> Generation:
    generation = generations.create(database, wanted, state="active")
    database.execute("INSERT INTO active_generation (generation_id) VALUES (%s)", [generation.id])
    return generation


def _without_documents(database: Database, found: Generation, wanted: Index) -> Outcome:
    others = [one for one in generations.every(database) if one.id != found.id]
    for one in others:
        generations.drop(database, one)
    if not found.holds(wanted):
        generations.drop(database, found)
        return Outcome(True, f"replaced generation {found.id} by {_create_active(database, wanted).id}")
    columns = (found.release, found.chunker, found.analyser, found.wanted_release)
    if columns == (wanted.release, wanted.chunker, wanted.analyser, None):
        return Outcome(bool(others), f"kept generation {found.id}")
    database.execute(
        "UPDATE generations SET release = %s, chunker = %s, analyser = %s, wanted_release = NULL WHERE id = %s",
        [wanted.release, wanted.chunker, wanted.analyser, found.id],
    )
    return Outcome(True, f"kept generation {found.id}, now computed by release {wanted.release}")


def _recut(database: Database, wanted: Index) -> int:
    """Queue every document of the generations that were cut or analysed in another way; how many items."""
    queued = 0
    for one in generations.every(database):
        if one.cut == (wanted.chunker, wanted.analyser):
            continue
        database.execute(
            "UPDATE generations SET chunker = %s, analyser = %s WHERE id = %s",
            [wanted.chunker, wanted.analyser, one.id],
        )
        queued += database.execute(statement("queue_again"), {"generation": one.id}).rowcount
        if one.state == "ready":
            _set_state(database, one, "building")
    return queued


def _same_space(database: Database, found: Generation, wanted: Index) -> Outcome:
    """The vectors that serve are of the wanted space: the release may be another one."""
    coming = generations.upcoming(database)
    if found.release == wanted.release:
        ended = _give_up(database, coming)
        if found.wanted_release:
            _want_release(database, found, None)
            ended = ended or f"gave up release {found.wanted_release}"
        return Outcome(bool(ended), ", ".join(filter(None, [f"kept generation {found.id}", ended])))
    if coming and coming.holds(wanted) and coming.release == wanted.release:
        return Outcome(False, _how_far(coming))
    if found.wanted_release == wanted.release and coming is None:
        return Outcome(False, f"kept generation {found.id}, release {wanted.release} is being compared with it")
    ended = _give_up(database, coming)
    if kept := _kept(database, wanted, wanted.release):
        _want_release(database, found, None)
        return Outcome(True, ", ".join(filter(None, [_go_back(database, kept, wanted), ended])))
    _want_release(database, found, wanted.release)
    done = f"kept generation {found.id}, release {wanted.release} is compared with it before it takes over"
    return Outcome(True, ", ".join(filter(None, [done, ended])))


def _other_space(database: Database, found: Generation, wanted: Index) -> Outcome:
    """Vectors of another space are wanted: those of a kept generation, or new ones."""
    coming = generations.upcoming(database)
    if coming and coming.holds(wanted) and wanted.release in (coming.release, coming.wanted_release):
        return Outcome(False, _how_far(coming))
    ended = _give_up(database, coming)
    _want_release(database, found, None)
    if kept := _kept(database, wanted):
        done = _go_back(database, kept, wanted)
    else:
        built, queued = _start(database, wanted)
        done = f"building generation {built.id} beside {found.id}, queued {queued} documents"
    return Outcome(True, ", ".join(filter(None, [done, ended])))


def _go_back(database: Database, kept: Generation, wanted: Index) -> str:
    """Let a kept generation serve again, at once if it lacks nothing. In words."""
    # Another release of its space is compared with its vectors once it serves.
    _want_release(database, kept, wanted.release if wanted.release != kept.release else None)
    _queue_missing(database, kept)
    if is_open(database, kept):
        _set_state(database, kept, "building")
        return f"going back to generation {kept.id}, once it has the documents that it lacks"
    # One that is in step was proven when it began to serve.
    _set_state(database, kept, "ready")
    return f"going back to generation {kept.id}"


def _kept(database: Database, wanted: Index, release: str | None = None) -> Generation | None:
    """The kept generation of the wanted space, and of `release` if it is given; the one that served last of several."""
    rows = database.execute("SELECT id FROM generations WHERE state = 'retired' ORDER BY retired_at DESC, id DESC")
    every = (generations.get(database, row["id"]) for row in rows.fetchall())
    return next((one for one in every if one.holds(wanted) and release in (None, one.release)), None)


def _start(database: Database, wanted: Index) -> tuple[Generation, int]:
    generation = generations.create(database, wanted, state="building")
    return generation, _queue_missing(database, generation)


def _give_up(database: Database, coming: Generation | None) -> str:
    """End what was wanted before: one that has served is kept as it was, a new one is dropped. In words."""
    if coming is None:
        return ""
    if coming.retired:
        _want_release(database, coming, None)
        _set_state(database, coming, "retired")
        return f"kept generation {coming.id} aside"
    generations.drop(database, coming)
    return f"gave up generation {coming.id}"


def _how_far(coming: Generation) -> str:
    if coming.state == "refused":
        return f"generation {coming.id} is refused: {coming.why}"
    return f"generation {coming.id} is {'ready to serve' if coming.state == 'ready' else 'being built'}"


def _queue_missing(database: Database, generation: Generation) -> int:
    return database.execute(statement("queue_missing"), {"generation": generation.id}).rowcount


def _set_state(database: Database, generation: Generation, state: str) -> None:
    database.execute("UPDATE generations SET state = %s, why = NULL WHERE id = %s", [state, generation.id])


def _want_release(database: Database, generation: Generation, release: str | None) -> None:
    database.execute("UPDATE generations SET wanted_release = %s, why = NULL WHERE id = %s", [release, generation.id])


def _judge(
    database: Database,
    generation: Generation,
    state: str,
    why: str | None,
    figures: Mapping[str, Any] | None,
    *,
    before: str = "building",
) -> bool:
    done = database.execute(
        "UPDATE generations SET state = %s, why = %s, gate = coalesce(%s, gate)"
        " WHERE id = %s AND state = %s AND (chunker, analyser) = (%s, %s)",
        [state, why, Jsonb(dict(figures)) if figures is not None else None, generation.id, before, *generation.cut],
    )
    return done.rowcount == 1


def _lags(database: Database, serving: Generation, generation: Generation) -> bool:
    row = database.execute(statement("lags"), {"serving": serving.id, "generation": generation.id}).fetchone()
    assert row is not None
    return bool(row["lags"])


def _progress(database: Database, generation: Generation) -> dict[str, Any]:
    row = database.execute(statement("progress"), {"generation": generation.id, "window": RECENT}).fetchone()
    assert row is not None
    return row


def _described(database: Database, generation: Generation, progress: dict[str, Any] | None = None) -> dict[str, Any]:
    progress = progress or _progress(database, generation)
    return {
        "id": generation.id,
        "state": generation.state,
        "release": generation.release,
        "dimension": generation.dimension,
        "documents": progress["documents"],
        "done": progress["done"],
        "chunks": generation.chunks,
    }


def _upcoming(database: Database, generation: Generation) -> dict[str, Any]:
    progress = _progress(database, generation)
    documents, done, parked = progress["documents"], progress["done"], progress["parked"]
    left = max(0, documents - done - parked)
    speed = progress["recent"] / progress["recent_seconds"] if progress["recent_seconds"] else 0.0
    return _described(database, generation, progress) | {
        "percent": round(100 * done / documents, 1) if documents else 100.0,
        "seconds_left": round(left / speed) if speed and generation.state == "building" else None,
        "parked": parked,
        "why": generation.why,
        "gate": generation.gate,
    }


def _compared(database: Database, serving: Generation) -> dict[str, Any] | None:
    if not serving.wanted_release:
        return None
    named = {"state": "comparing", "release": serving.wanted_release}
    return _upcoming(database, serving) | named


def _summary(coming: Mapping[str, Any], serving: Generation) -> str:
    release, why, on = coming["release"], coming["why"], f"{serving.release} serves meanwhile"
    if coming["state"] == "refused":
        return f"{release} is refused: {why} {serving.release} serves on."
    if coming["state"] == "comparing":
        held_up = f"; {why}" if why else ""
        return f"{release} is compared with the vectors of {serving.release} before it takes over{held_up}"
    if coming["state"] == "ready":
        return f"{release} is indexed and proven, the app loads it; {why or on}"
    left = "" if coming["seconds_left"] is None else f", {_duration(coming['seconds_left'])} left"
    far = f"{coming['done']} of {coming['documents']} documents"
    return f"re-embedding by {release}: {coming['percent']:.0f} % ({far}{left}); {why or on}"


def _duration(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"
