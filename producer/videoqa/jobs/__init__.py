"""The life of a job in Redis: the ledger, its Lua scripts, and every key."""

from videoqa.jobs.cached_object import CachedObject
from videoqa.jobs.connection import (
    ENCODING_ERRORS,
    MAX_CONNECTIONS,
    connect,
    connect_replica,
    explain_broken,
    find_eviction_policy,
    is_permission_error,
    make_finder,
    make_retry,
    server_address,
    server_name,
    translate_redis_errors,
)
from videoqa.jobs.event_cursor import EventCursor
from videoqa.jobs.job_filter import JobFilter
from videoqa.jobs.keys import queue_name
from videoqa.jobs.ledger import (
    Claim,
    ClaimResult,
    Ledger,
    Progress,
    ReapResult,
    Unreadable,
    WriteReply,
)
from videoqa.jobs.list_cursor import ListCursor
from videoqa.jobs.permissions import check_permissions
from videoqa.jobs.reader import LedgerReader, check_job_id
from videoqa.jobs.replica_reads import ReplicaReader
from videoqa.jobs.sentinels import PrimaryFinder, SentinelReply
from videoqa.jobs.server_checks import DemotedError, WrongServerError, make_leaving_class
from videoqa.jobs.settling import AnyFuture
from videoqa.jobs.shared_reader import SharedReader
from videoqa.jobs.submission import Submission, SubmitResult, new_job_id

__all__ = [
    "ENCODING_ERRORS",
    "MAX_CONNECTIONS",
    "AnyFuture",
    "CachedObject",
    "Claim",
    "ClaimResult",
    "DemotedError",
    "EventCursor",
    "JobFilter",
    "Ledger",
    "LedgerReader",
    "ListCursor",
    "PrimaryFinder",
    "Progress",
    "ReapResult",
    "ReplicaReader",
    "SentinelReply",
    "SharedReader",
    "Submission",
    "SubmitResult",
    "Unreadable",
    "WriteReply",
    "WrongServerError",
    "check_job_id",
    "check_permissions",
    "connect",
    "connect_replica",
    "explain_broken",
    "find_eviction_policy",
    "is_permission_error",
    "make_finder",
    "make_leaving_class",
    "make_retry",
    "new_job_id",
    "queue_name",
    "server_address",
    "server_name",
    "translate_redis_errors",
]
