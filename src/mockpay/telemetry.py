"""Counters and histograms of this process, in Prometheus' text format.

Where several server processes share a port, a scrape meets any of them. They then count in shared files (the library's
multi-process mode, switched on by PROMETHEUS_MULTIPROC_DIR before it is imported), and each answers for all.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
MULTIPROCESS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_LATENCY_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS: Final = frozenset({"GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS"})
_INJECTED: Final = "injected"


def gauge(name: str, documentation: str, values: Mapping[str, float], label: str = "") -> Metric:
    """A value that is read when it is asked for. `values` by label, or under "" where there is none."""
    family = GaugeMetricFamily(name, documentation, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], value)
    return family


class Telemetry:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._latency = Histogram(
            "mockpay_http_request_duration_seconds",
            "Requests by method, route and status, with the time until the answer was sent.",
            ["method", "route", "status"],
            buckets=_LATENCY_SECONDS,
            registry=self._registry,
        )
        self._series: dict[tuple[str, str, str], Histogram] = {}
        self._attempts = Counter(
            "mockpay_webhook_attempts",
            "Webhook attempts by what they made of the delivery: delivered, retry or dead.",
            ["outcome"],
            registry=self._registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float, *, is_injected: bool = False) -> None:
        """Counts a request under labels that no client can make more of.

        `route` is the template: with ids in it each payment would be a series of its own. The status of an injected
        answer is the client's choice, so all of these count as one.
        """
        key = (method if method in _METHODS else "other", route, _INJECTED if is_injected else str(status))
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._latency.labels(*key)
        series.observe(seconds)

    def attempt(self, delivery_status: str) -> None:
        self._attempts.labels("retry" if delivery_status == "pending" else delivery_status).inc()

    def serve(self, host: str, port: int) -> None:
        """On a thread, for a process that has no other server. Raises OSError if the port can't be had."""
        start_http_server(port, host, self._registry)

    def text(self, gauges: Iterable[Metric]) -> bytes:
        """What was counted, and `gauges` beside it."""
        counted = self._registry
        if MULTIPROCESS_FOLDER in os.environ:
            counted = CollectorRegistry()
            MultiProcessCollector(counted)  # type: ignore[no-untyped-call]  # the library leaves it untyped
        read = CollectorRegistry()
        read.register(_Read(gauges))
        return generate_latest(counted) + generate_latest(read)


class _Read(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
