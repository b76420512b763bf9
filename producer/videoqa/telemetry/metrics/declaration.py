"""The form of a metric's declaration, and the labels that several metrics share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from videoqa import errors

__all__ = ["CODE", "MODEL", "OTHER", "PRIORITY", "Label", "Metric", "list_failure_codes"]

OTHER = "other"
"""Value of a label in place of all values that are not declared."""


@dataclass(frozen=True)
class Label:
    """A label, and what bounds its values; never a tenant, a job, a worker or a URL."""

    name: str
    values: tuple[str, ...] = ()
    """All values; empty: `bound` says which there are."""
    bound: str = ""
    """Says which values there are, where they are not known before the process runs."""


@dataclass(frozen=True)
class Metric:
    """A metric, as Prometheus scrapes it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, without the last one, which is infinite."""

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def is_bounded(self) -> bool:
        """True if the values of all labels are declared."""
        return all(label.values for label in self.labels)

    def list_label_values(self) -> Iterator[tuple[str, ...]]:
        """Yields all values that the labels can have together, if they are declared."""
        return product(*(label.values for label in self.labels))

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the metric's series, as queries use them."""
        if self.kind != "histogram":
            return (self.name,)
        return tuple(f"{self.name}{suffix}" for suffix in ("_bucket", "_sum", "_count"))


def list_failure_codes() -> tuple[str, ...]:
    """Lists the codes with which an attempt or a job may end."""

    def walk(kind: type[errors.VideoQAError]) -> Iterator[str]:
        yield kind.code
        for each in kind.__subclasses__():
            yield from walk(each)

    found = {*walk(errors.JobError), errors.RecordUnreadable.code}
    return (*sorted(found - {errors.JobError.code}), OTHER)


MODEL = Label(
    "model",
    bound="a model that workers announced within a day (100 at most), `default` or `other`",
)
PRIORITY = Label("priority", ("interactive", "bulk"))
CODE = Label("code", list_failure_codes())
