"""The life of a job in Redis: the ledger, its Lua scripts, and every key."""

from videoqa.jobs.connection import (
    check_database,
    connect,
    connect_async,
    place,
    server_name,
    speaking_redis,
)
from videoqa.jobs.event_cursor import Following
from videoqa.jobs.keys import PRIORITIES, TASK, Priority, queue_name
from videoqa.jobs.ledger import Claim, Fence, Ledger, Unreadable
from videoqa.jobs.reader import BEGINNINGS, read, to_events
from videoqa.jobs.submission import Bell, Place, Submission, new_job_id

__all__ = [
    "BEGINNINGS",
    "PRIORITIES",
    "TASK",
    "Bell",
    "Claim",
    "Fence",
    "Following",
    "Ledger",
    "Place",
    "Priority",
    "Submission",
    "Unreadable",
    "check_database",
    "connect",
    "connect_async",
    "new_job_id",
    "place",
    "queue_name",
    "read",
    "server_name",
    "speaking_redis",
    "to_events",
]
