"""What Prometheus reads of app and worker. Labels hold names of this program's, never a customer's words."""

from collections.abc import Iterable, Mapping
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline import cgroup
from pipeline.embedder import Embedder
from pipeline.reranker import Reranker

REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds
STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)  # seconds

# The time at which each series began would double their number, and nothing here asks for it.
prometheus_client.disable_created_metrics()


class ListenError(RuntimeError):
    """The port for metrics cannot be used, in one sentence."""


def new_registry() -> CollectorRegistry:
    """With what any process of the box tells: its processor time, memory and files, and its container's memory."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Memory())
    return registry


def listen(registry: CollectorRegistry, port: int) -> None:
    """Answer GET /metrics on `port`, from a thread, until the process ends; 0 is no port. ListenError."""
    if not port:
        return
    try:
        # Inside the container; compose publishes it on the VM's loopback, if at all.
        prometheus_client.start_http_server(port, "0.0.0.0", registry)
    except OSError as error:
        raise ListenError(
            f"METRICS_PORT is {port}, where nothing can listen ({error.strerror}); write a free port, or 0 for none."
        ) from None


def model_info(models: Mapping[str, Embedder | Reranker | None]) -> InfoMetricFamily:
    """A series for each model that serves, given by kind."""
    family = InfoMetricFamily("onebox_model", "The models that serve.", labels=["kind", "name", "release"])
    for kind, model in models.items():
        if model:
            profile = model.folder.manifest.get("profile", {}) if model.folder else {}
            family.add_metric([kind, profile.get("name", ""), model.release_id], {})
    return family


def gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    """One that has no labels."""
    return GaugeMetricFamily(name, documentation, value=value)


class Metrics:
    """What the app counts as it happens."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.requests = Counter(
            "onebox_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "onebox_request_seconds",
            "From a request's first byte to the last one of its answer.",
            ["method", "route"],
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "onebox_search_stage_seconds",
            "Stages of a search, and their total.",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self._reranks = Counter(
            "onebox_reranks",
            "Searches by whether the reranker ran, and why or why not.",
            ["ran", "reason"],
            registry=self.registry,
        )

    def searched(self, answer: Mapping[str, Any]) -> None:
        """Count what an answer of /search says about its stages and about reranking."""
        for stage, milliseconds in answer["timings_ms"].items():
            self._stages.labels(stage).observe(milliseconds / 1000)
        report = answer["rerank"]
        self._reranks.labels("yes" if report["ran"] else "no", report["reason"]).inc()


class _Memory(Collector):
    """Read when Prometheus asks, like all that is not counted."""

    def collect(self) -> Iterable[Metric]:
        memory = cgroup.memory()
        if memory is None:
            return
        yield gauge(
            "onebox_memory_used_bytes", "Memory of the container, without file pages that give way first.", memory.used
        )
        if memory.limit is not None:
            yield gauge("onebox_memory_limit_bytes", "Memory that the container may have.", memory.limit)
