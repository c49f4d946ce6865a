"""What the app looks up when Prometheus asks: lanes, cache, index, queue, models."""

from collections.abc import Iterable
from typing import Any

import psycopg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg_pool import PoolTimeout

from app.metrics import gauge, model_info
from app.services import Services
from store import generations, jobs, switching
from store.errors import BusyError

# Of Lane.state(): the field, the metric, what it says.
LANE = (
    ("jobs", "onebox_lane_requests", "Requests that compute in a lane or wait there."),
    ("running", "onebox_lane_running", "Sequences that a lane computes at this moment."),
    ("tokens", "onebox_lane_tokens", "Tokens that a lane has yet to compute."),
    ("tokens_per_second", "onebox_lane_tokens_per_second", "How fast a lane went lately; 0 before its first work."),
    ("seconds", "onebox_lane_wait_seconds", "Work that is in a lane, in seconds as fast as it goes."),
)


class Gauges(Collector):
    """The state of one app. Without its database, or a free connection to it, what is stored there is left out;
    onebox_database_up is 0 without the database alone."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        yield from self._lanes()
        yield self._counter(
            "onebox_cache_lookups", "Texts looked up in the cache of vectors.", "result", self._services.cache.lookups
        )
        yield self._counter(
            "onebox_rate_limited", "Requests refused for their rate.", "by", self._services.limiter.refused
        )
        yield self._models()
        degraded = self._services.degraded()
        yield gauge("onebox_degraded", "Reasons for which the box is degraded; /health has the words.", len(degraded))
        yield from self._stored()

    def _lanes(self) -> Iterable[Metric]:
        lanes = self._services.models.lanes
        states = [(lane.name, lane.state()) for lane in (lanes.query, lanes.bulk)]
        for field, name, documentation in LANE:
            family = GaugeMetricFamily(name, documentation, labels=["lane"])
            for lane, state in states:
                family.add_metric([lane], state[field] or 0)
            yield family

    def _counter(self, name: str, documentation: str, label: str, counts: dict[str, int]) -> Metric:
        family = CounterMetricFamily(name, documentation, labels=[label])
        for value, count in counts.items():
            family.add_metric([value], count)
        return family

    def _models(self) -> Metric:
        loaded = self._services.models.loaded
        return model_info({"embedding": loaded.embedder, "reranker": loaded.reranker} if loaded else {})

    def _stored(self) -> Iterable[Metric]:
        try:
            with self._services.pool.connection() as database:
                active = generations.active(database)
                documents = generations.count_documents(database)
                queue = jobs.queue(database)
                coming = switching.following(database)
        except (psycopg.Error, PoolTimeout) as error:
            up = int(isinstance(error, BusyError))
            yield gauge("onebox_database_up", "Whether the database answers in time.", up)
            return
        yield gauge("onebox_database_up", "Whether the database answers in time.", 1)
        yield gauge("onebox_documents", "Documents.", documents)
        yield gauge("onebox_chunks", "Chunks in the index that serves.", active.chunks if active else 0)
        items = GaugeMetricFamily("onebox_items", "Documents to index, and those given up.", labels=["state"])
        for state in ("queued", "running", "parked"):
            items.add_metric([state], queue[state])
        yield items
        yield gauge(
            "onebox_oldest_queued_seconds", "How long the oldest queued document has waited.", queue["oldest_seconds"]
        )
        if coming:
            yield from self._coming(coming)

    def _coming(self, coming: dict[str, Any]) -> Iterable[Metric]:
        state = GaugeMetricFamily(
            "onebox_next_generation", "The generation that is to serve.", labels=["state", "release"]
        )
        state.add_metric([coming["state"], coming["release"]], 1)
        yield state
        documents = GaugeMetricFamily("onebox_next_generation_documents", "Documents for it.", labels=["state"])
        for name, count in (
            ("all", coming["documents"]), ("done", coming["done"]), ("parked", coming["parked"]),
        ):  # fmt: skip
            documents.add_metric([name], count)
        yield documents
        if coming["seconds_left"] is not None:
            yield gauge(
                "onebox_next_generation_seconds_left", "When it will be complete, at its speed.", coming["seconds_left"]
            )
