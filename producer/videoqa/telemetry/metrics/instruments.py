"""Instruments: what counts, made of the declarations by prometheus-client, one registry a process.

A process counts with threads and not with others, so the library's multi-process mode, which writes each count into
a file, is not used. Series of which all label values are declared exist from the start, with 0: the first count of
one is then an increase that a query sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, Protocol, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from videoqa.telemetry.metrics.declaration import OTHER, Label, Metric

__all__ = ["Count", "Instruments", "Observe", "Samples", "SeriesOf", "make_family"]

disable_created_metrics()  # type: ignore[no-untyped-call] # a series `_created` for each counter says nothing that a query needs

Samples = Mapping[tuple[str, ...], float]
"""Values of a metric by those of its labels."""


T = TypeVar("T")


class Count(Protocol):
    """Adds to a counter."""

    def inc(self, amount: float = 1) -> None: ...


class Observe(Protocol):
    """Adds a value to a histogram."""

    def observe(self, amount: float) -> None: ...


class SeriesOf(Generic[T]):
    """The series of one metric by the values of its labels; one lookup in a dict is all that a count costs more."""

    def __init__(self, parent: Counter | Histogram, labels: tuple[Label, ...]) -> None:
        self._parent = parent
        self._labels = labels
        self._found: dict[tuple[str, ...], T] = {}

    def __call__(self, *values: str) -> T:
        """Returns the series of these values; one that is not declared is `other`."""
        found = self._found.get(values)
        if found is None:
            # Kept under the declared values alone: callers of a gateway make up any number of others.
            values = tuple(map(_check, self._labels, values))
            one = self._parent.labels(*values) if values else self._parent
            found = self._found[values] = cast(T, one)
        return found


def _check(label: Label, value: str) -> str:
    if not label.values or value in label.values:
        return value
    if OTHER in label.values:
        return OTHER
    raise ValueError(f"got {label.name}={value!r}, expected one of {', '.join(label.values)}")


class Instruments:
    """Makes the instruments of declared metrics in one registry."""

    def __init__(self, registry: CollectorRegistry, **known: str) -> None:
        """
        Arguments:
            known: values of labels that are the same in all series of this process.
        """
        self._registry = registry
        self._known = known

    def make_counter(self, metric: Metric) -> SeriesOf[Count]:
        """Makes a counter; all series of declared values are there from now on."""
        parent = Counter(metric.name, metric.meaning, metric.label_names, registry=self._registry)
        found = SeriesOf[Count](parent, metric.labels)
        self._begin(metric, found)
        return found

    def make_histogram(self, metric: Metric) -> SeriesOf[Observe]:
        """Makes a histogram; all series of declared values are there from now on."""
        parent = Histogram(
            metric.name,
            metric.meaning,
            metric.label_names,
            buckets=metric.buckets,
            registry=self._registry,
        )
        found = SeriesOf[Observe](parent, metric.labels)
        self._begin(metric, found)
        return found

    def _begin(self, metric: Metric, found: SeriesOf[Count] | SeriesOf[Observe]) -> None:
        labels = [
            Label(each.name, (self._known[each.name],)) if each.name in self._known else each
            for each in metric.labels
        ]
        whole = Metric(metric.name, metric.kind, metric.meaning, tuple(labels))
        if labels and whole.is_bounded:
            for values in whole.list_label_values():
                found(*values)


def make_family(
    metric: Metric, samples: Samples | Iterable[tuple[tuple[str, ...], float]]
) -> Family:
    """Returns the samples of a metric that is read when it is scraped."""
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    found = kind(metric.name, metric.meaning, labels=metric.label_names)
    for values, value in samples.items() if isinstance(samples, Mapping) else samples:
        found.add_metric(values, value)
    return found
