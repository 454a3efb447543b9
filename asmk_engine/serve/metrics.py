"""What the server counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "asmk_requests", "Requests by path of the API and status", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "asmk_request_seconds", "Seconds from a request to its answer", ["path"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.describe = Histogram(
            "asmk_describe_seconds", "Seconds to describe the photographs of a question", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.search = Histogram(
            "asmk_search_seconds", "Seconds of a search, with the verification", buckets=SECONDS, registry=self.registry
        )

    def gauge(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Add a number that is asked for when the metrics are read."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """Return all metrics."""
        return generate_latest(self.registry)
