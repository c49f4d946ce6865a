"""What Prometheus reads of a worker."""

from collections.abc import Iterable

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from app.metrics import model_info, new_registry
from pipeline.embedder import Embedder

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)  # seconds


class Metrics(Collector):
    """Counted as it happens. `model` is what the worker embeds with, once it has loaded it."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.model: Embedder | None = None
        self.items = Counter(
            "onebox_worker_items",
            "Documents worked on: indexed, dropped (replaced meanwhile), released (given back), failed, or parked.",
            ["outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "onebox_worker_item_seconds",
            "From taking a document to its index entry.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._passages = Counter(
            "onebox_worker_passages",
            "Passages by whether their vector was computed, or known from before.",
            ["vector"],
            registry=self.registry,
        )
        self.registry.register(self)

    def worked(self, outcome: str, seconds: float, *, passages: int, embedded: int) -> None:
        """Count a document that is through: `passages` it has now, of which `embedded` had to be computed."""
        self._seconds.observe(seconds)
        self._passages.labels("computed").inc(embedded)
        self._passages.labels("known").inc(max(0, passages - embedded))
        self.items.labels(outcome).inc()

    def collect(self) -> Iterable[Metric]:
        yield model_info({"embedding": self.model})
