"""The writer of progress: what takes whose place, and in which order it comes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

from videoqa.jobs import Progress
from videoqa_worker.job.context import JobControl
from videoqa_worker.job.progress import ProgressWriter


class Slow:
    """Stands in for the ledger: a call takes until it is told to end."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.begun, self.may_end = threading.Event(), threading.Event()

    def report(self, reports: Sequence[tuple[str, str, Progress]]) -> list[str]:
        self.begun.set()
        assert self.may_end.wait(10)
        self.stages += [progress.stage for _, _, progress in reports]
        return ["ok"] * len(reports)


def test_only_the_latest_report_is_written_and_a_dropped_one_is_not() -> None:
    ledger = Slow()
    ledger.may_end.set()
    writer, control = (
        ProgressWriter(cast(Any, ledger), every_s=0.1),
        JobControl("job_1", 1, 60, token="t"),
    )
    writer.note(control, Progress("fetching"))
    writer.note(control, Progress("sampling"))
    writer.write()
    writer.note(control, Progress("generating"))
    writer.drop(control)
    writer.write()
    assert ledger.stages == ["sampling"]


def test_a_report_on_its_way_is_written_before_what_follows() -> None:
    ledger = Slow()
    writer, control = (
        ProgressWriter(cast(Any, ledger), every_s=0.1),
        JobControl("job_1", 1, 60, token="t"),
    )
    writer.note(control, Progress("sampling"))
    thread = threading.Thread(target=writer.write)
    thread.start()
    assert ledger.begun.wait(10)
    threading.Timer(0.1, ledger.may_end.set).start()
    writer.drop(control)
    ledger.stages.append("generating")
    thread.join(10)
    assert ledger.stages == ["sampling", "generating"]
