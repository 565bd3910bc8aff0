"""Metrics in the form that Prometheus' library wants them in, named with our prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ..telemetry import Histogram

PREFIX = "shadowcat_"

Labels = TypeVar("Labels", bound=tuple[str, ...])
"""Values of labels, in their order."""


def counter(name: str, text: str, value: float) -> Metric:
    """Return what only grows; its name gets ``_total``."""
    return CounterMetricFamily(PREFIX + name, text, value=value)


def counters(name: str, text: str, labels: Sequence[str], rows: Mapping[Labels, float]) -> Metric:
    """Return several of what only grows."""
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in rows.items():
        family.add_metric(values, value)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    """Return what goes up and down."""
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def gauges(name: str, text: str, labels: Sequence[str], rows: Mapping[Labels, float]) -> Metric:
    """Return several of what goes up and down."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in rows.items():
        family.add_metric(values, float(value))
    return family


def histogram(name: str, text: str, values: Histogram) -> Metric:
    """Return how often something took how long."""
    return histograms(name, text, [], {(): values})


def histograms(name: str, text: str, labels: Sequence[str], rows: Mapping[Labels, Histogram]) -> Metric:
    """Return how often each of several things took how long."""
    family = HistogramMetricFamily(PREFIX + name, text, labels=labels)
    for values, found in rows.items():
        family.add_metric(values, found.buckets(), found.total)
    return family
