"""Attention: the rules by which a fleet's figures become sentences about what an operator should look at.

Does no I/O. Each rule has its threshold as a constant, and a row in docs/guide/watch.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from videoqa.contract import (
    Attention,
    ModelStats,
    QueueInfo,
    Severity,
    WorkerInfo,
)

__all__ = ["Fleet", "Webhooks", "find_attention"]

UNSERVED_S = 60.0
"""no_worker: jobs have waited for this long, and so long no worker that serves them was heard."""
FEWEST_ENDED, FAILED_SHARE, SEVERE_SHARE = 10, 0.2, 0.8
"""failures: this share of at least so many jobs that ended within the hour failed with one code; from the second
share on it is critical."""
START_BY_S = 300.0
"""start_by_near: the oldest job expires in less than this, and has waited for longer than it has left."""
LOADING_S = 600.0
"""workers_loading: jobs wait, and all workers of their model have been loading for this long."""
PAUSED_S = 600.0
"""queue_paused: jobs wait in a queue that has been paused for this long; without jobs it is a notice."""
SILENT_S = 40.0
"""worker_silent: a worker, which speaks every 20 s, has not been heard for this long."""
FEWEST_LOST = 3
"""workers_lost: so many attempts within the hour lost their worker."""
FEWEST_EXPIRED = 1
"""jobs_expired: so many jobs within the hour expired before a worker began them."""
ROSE_S, FEWEST_FAILED, ROSE_BY = 900, 10, 3.0
"""dead_letters_rose: so many jobs failed within 15 minutes, and so many times as many as in the 45 minutes before, by
their length."""
BACKLOG_S = {"interactive": 120.0, "bulk": 3600.0}
"""backlog: the oldest job of a queue with ready workers has waited for this long, and all of their slots are busy."""
LATE_S = 300.0
"""webhooks_late: an event of a job that ended before this could not be delivered yet, or was given up within a day."""

_ORDER: dict[Severity, int] = {"critical": 0, "warning": 1, "notice": 2}


@dataclass(frozen=True)
class Webhooks:
    """The state of webhook deliveries."""

    late: int = 0
    """Events that are older than `LATE_S` and not delivered yet, those that no gateway has taken included."""
    oldest_s: float = 0.0
    """Age of the oldest of these."""
    given_up: int = 0
    """Events of jobs that ended within a day, and are tried no more."""


@dataclass(frozen=True)
class Fleet:
    """All that the rules look at."""

    queues: Sequence[QueueInfo] = ()
    workers: Sequence[WorkerInfo] = ()
    models: Sequence[ModelStats] = ()
    """Figures of the last hour."""
    webhooks: Webhooks = field(default_factory=Webhooks)


def find_attention(fleet: Fleet) -> tuple[Attention, ...]:
    """Returns what needs attention, the most severe in front."""
    rules = (
        _find_unserved, _find_failures, _find_start_by, _find_loading, _find_paused, _find_silent, _find_broken,
        _find_lost, _find_expired, _find_risen, _find_backlogs, _find_revisions, _find_late_webhooks,
        _find_versions,
    )  # fmt: skip
    found = [one for rule in rules for one in rule(fleet)]
    return tuple(sorted(found, key=lambda one: _ORDER[one.severity]))


# Jobs that wait


def _group(fleet: Fleet) -> dict[str | None, list[QueueInfo]]:
    found: dict[str | None, list[QueueInfo]] = defaultdict(list)
    for queue in fleet.queues:
        found[queue.model].append(queue)
    return found


def _count_waiting(queues: Sequence[QueueInfo]) -> int:
    return sum(queue.waiting + queue.due for queue in queues)


def _serves(worker: WorkerInfo, model: str | None) -> bool:
    if model is None:
        return any(".default." in queue for queue in worker.queues)
    return worker.model == model


def _find_unserved(fleet: Fleet) -> Iterator[Attention]:
    for model, queues in _group(fleet).items():
        waiting = _count_waiting(queues)
        mine = [worker for worker in fleet.workers if _serves(worker, model)]
        are_leaving = bool(mine) and all(worker.state == "draining" for worker in mine)
        if not waiting or (any(queue.all_workers for queue in queues) and not are_leaving):
            continue
        served_s = min((q.served_s for q in queues if q.served_s is not None), default=None)
        waited_s = max((queue.oldest_s or 0.0 for queue in queues), default=0.0)
        if waited_s < UNSERVED_S or not (are_leaving or served_s is None or served_s >= UNSERVED_S):
            continue
        how_long = "within a day" if served_s is None else f"for {format_age(served_s)}"
        if are_leaving:
            how_long = (
                "but one that shuts down" if len(mine) == 1 else f"but {len(mine)} that shut down"
            )
        start = f"with VIDEOQA_MODEL={model}" if model else "with VIDEOQA_SERVE_DEFAULT=true"
        yield Attention(
            severity="critical",
            code="no_worker",
            message=f"{_name(model)}: {_count_jobs(waiting, 'waits', 'wait')}, no worker {how_long}; start "
            f"`videoqa worker` {start}",
            about="model",
            model=model,
        )


def _find_loading(fleet: Fleet) -> Iterator[Attention]:
    for model, queues in _group(fleet).items():
        waiting = _count_waiting(queues)
        if not waiting or any(queue.workers for queue in queues):
            continue
        mine = [worker for worker in fleet.workers if _serves(worker, model)]
        ages = [_find_age(worker) for worker in mine if worker.state == "loading"]
        if ages and min(ages) >= LOADING_S:
            yield Attention(
                severity="warning",
                code="workers_loading",
                message=f"{_name(model)}: {_count_jobs(waiting, 'waits', 'wait')}, and "
                f"{_count(len(ages), 'worker')} still loading after {format_age(min(ages))}; look at the log",
                about="model",
                model=model,
            )


def _find_start_by(fleet: Fleet) -> Iterator[Attention]:
    for queue in fleet.queues:
        left_s, waited_s = queue.start_by_s, queue.oldest_s or 0.0
        if left_s is None or left_s > min(START_BY_S, waited_s):
            continue
        yield Attention(
            severity="critical",
            code="start_by_near",
            message=f"{_name_queue(queue)}: the oldest job waits {format_age(waited_s)} and expires in "
            f"{format_age(max(0.0, left_s))}, at its start_by; add workers, or resume the queue",
            about="queue",
            model=queue.model,
            priority=queue.priority,
        )


def _find_paused(fleet: Fleet) -> Iterator[Attention]:
    for queue in fleet.queues:
        if queue.paused_s is None:
            continue
        waiting = queue.waiting + queue.due
        is_long = waiting > 0 and queue.paused_s >= PAUSED_S
        waits = f", {_count_jobs(waiting, 'waits', 'wait')}" if waiting else ""
        yield Attention(
            severity="warning" if is_long else "notice",
            code="queue_paused",
            message=f"{_name_queue(queue)}: paused for {format_age(queue.paused_s)}{waits}; resume it when "
            "it may go on",
            about="queue",
            model=queue.model,
            priority=queue.priority,
        )


def _find_backlogs(fleet: Fleet) -> Iterator[Attention]:
    busy: dict[str | None, int] = defaultdict(int)
    for queue in fleet.queues:
        busy[queue.model] += queue.running
    for queue in fleet.queues:
        waited_s = queue.oldest_s or 0.0
        if not queue.workers or queue.paused or waited_s < BACKLOG_S[queue.priority]:
            continue
        if busy[queue.model] < queue.slots:
            continue
        yield Attention(
            severity="warning",
            code="backlog",
            message=f"{_name_queue(queue)}: {_count_jobs(queue.waiting, 'waits', 'wait')}, the oldest for "
            f"{format_age(waited_s)}, and all {queue.slots} slots are busy; add workers",
            about="queue",
            model=queue.model,
            priority=queue.priority,
        )


# Jobs that ended


def _find_failures(fleet: Fleet) -> Iterator[Attention]:
    for each in fleet.models:
        ended = each.totals.ended
        for code, failed in each.failures.items():
            if ended < FEWEST_ENDED or failed < FAILED_SHARE * ended:
                continue
            yield Attention(
                severity="critical" if failed >= SEVERE_SHARE * ended else "warning",
                code="failures",
                message=f"{_name_of(each)}: {failed} of the last {ended} jobs ended as {code}; look at one of them",
                about="failures",
                model=each.model,
                failure=code,
            )


def _find_expired(fleet: Fleet) -> Iterator[Attention]:
    for each in fleet.models:
        if each.totals.expired >= FEWEST_EXPIRED:
            expired = _count_jobs(each.totals.expired, "has expired", "have expired")
            yield Attention(
                severity="warning",
                code="jobs_expired",
                message=f"{_name_of(each)}: {expired} within the hour, since no worker began them before start_by; "
                "add workers",
                about="failures",
                model=each.model,
                failure="start_by_passed",
            )


def _find_lost(fleet: Fleet) -> Iterator[Attention]:
    for each in fleet.models:
        lost = each.retries.get("worker_lost", 0) + each.failures.get("worker_lost", 0)
        if lost >= FEWEST_LOST:
            yield Attention(
                severity="warning",
                code="workers_lost",
                message=f"{_name_of(each)}: {lost} attempts lost their worker within the hour; look for workers that "
                "were killed, by the kernel for memory for example",
                about="failures",
                model=each.model,
                failure="worker_lost",
            )


def _find_risen(fleet: Fleet) -> Iterator[Attention]:
    for each in fleet.models:
        if not each.series:
            continue
        since_s = each.series[-1].at.timestamp() - ROSE_S
        new = sum(point.failed for point in each.series if point.at.timestamp() > since_s)
        old = each.totals.failed - new
        if new < FEWEST_FAILED or new < ROSE_BY * old * ROSE_S / (3600 - ROSE_S):
            continue
        yield Attention(
            severity="warning",
            code="dead_letters_rose",
            message=f"{_name_of(each)}: {new} jobs failed in the last {format_age(ROSE_S)}, {old} in the "
            f"{format_age(3600 - ROSE_S)} before; see the dead letters by code",
            about="failures",
            model=each.model,
        )


# Workers


def _find_silent(fleet: Fleet) -> Iterator[Attention]:
    for worker in fleet.workers:
        if worker.heard_s is not None and worker.heard_s >= SILENT_S:
            yield Attention(
                severity="warning",
                code="worker_silent",
                message=f"worker {worker.id} has not been heard for {format_age(worker.heard_s)}; at 60 s it counts as "
                "gone, and its jobs run elsewhere",
                about="worker",
                model=worker.model,
                worker=worker.id,
            )


def _find_broken(fleet: Fleet) -> Iterator[Attention]:
    for worker in fleet.workers:
        if worker.state == "broken":
            yield Attention(
                severity="warning",
                code="worker_broken",
                message=f"worker {worker.id}: its engine has stopped; look at its log, and start it again",
                about="worker",
                model=worker.model,
                worker=worker.id,
            )


def _find_revisions(fleet: Fleet) -> Iterator[Attention]:
    revisions: dict[str, set[str]] = defaultdict(set)
    for worker in fleet.workers:
        if worker.model_revision is not None:
            revisions[worker.model].add(worker.model_revision)
    for model, found in revisions.items():
        if len(found) > 1:
            yield Attention(
                severity="warning",
                code="revisions_differ",
                message=f"{model}: workers run {len(found)} revisions of the model, {_list(found)}; equal jobs get "
                "different answers until all run one",
                about="worker",
                model=model,
            )


def _find_versions(fleet: Fleet) -> Iterator[Attention]:
    found = {worker.version for worker in fleet.workers if worker.version is not None}
    if len(found) > 1:
        yield Attention(
            severity="notice",
            code="versions_differ",
            message=f"workers run {len(found)} releases of videoqa-worker, {_list(found)}; finish the upgrade",
            about="worker",
        )


def _find_late_webhooks(fleet: Fleet) -> Iterator[Attention]:
    hooks = fleet.webhooks
    found = []
    if hooks.late:
        found.append(
            f"{_count(hooks.late, 'event')} not delivered yet, the oldest for {format_age(hooks.oldest_s)}"
        )
    if hooks.given_up:
        found.append(f"{_count(hooks.given_up, 'event')} of the last day given up")
    if found:
        yield Attention(
            severity="warning",
            code="webhooks_late",
            message=f"webhooks: {', '.join(found)}; look at the deliveries, or whether a gateway runs",
            about="webhooks",
        )


# Words


def _name(model: str | None) -> str:
    return model or "default model"


def _name_of(each: ModelStats) -> str:
    return "other models" if each.other else _name(each.model)


def _name_queue(queue: QueueInfo) -> str:
    return f"{_name(queue.model)} ({queue.priority})"


def _find_age(worker: WorkerInfo) -> float:
    """Returns how long the worker has run, on its own clock."""
    return max(0.0, (worker.seen_at - worker.started_at).total_seconds())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _count_jobs(number: int, one: str, many: str) -> str:
    return f"{_count(number, 'job')} {one if number == 1 else many}"


def _list(names: set[str]) -> str:
    shown = sorted(name[:12] for name in names)
    return ", ".join(shown[:3]) + (" and more" if len(shown) > 3 else "")


def format_age(seconds: float) -> str:
    """Returns a time in words: `40 s`, `5 min`, `2 h 5 min`, `3 days`."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {rest} min" if rest and hours < 12 else f"{hours} h"
