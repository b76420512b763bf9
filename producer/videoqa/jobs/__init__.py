"""The life of a job in Redis: the ledger, its Lua scripts, and every key."""

from videoqa.jobs.connection import (
    check_database_number,
    connect,
    connect_async,
    place,
    server_name,
    speaking_redis,
)
from videoqa.jobs.event_cursor import EventCursor
from videoqa.jobs.event_stream import AsyncEventReader
from videoqa.jobs.keys import PRIORITIES, TASK, Priority, queue_name
from videoqa.jobs.ledger import Claim, Fence, Ledger, Unreadable
from videoqa.jobs.list_cursor import ListCursor
from videoqa.jobs.reader import read
from videoqa.jobs.submission import Bell, Submission, SubmitResult, new_job_id

__all__ = [
    "PRIORITIES",
    "TASK",
    "AsyncEventReader",
    "Bell",
    "Claim",
    "EventCursor",
    "Fence",
    "Ledger",
    "ListCursor",
    "Priority",
    "Submission",
    "SubmitResult",
    "Unreadable",
    "check_database_number",
    "connect",
    "connect_async",
    "new_job_id",
    "place",
    "queue_name",
    "read",
    "server_name",
    "speaking_redis",
]
