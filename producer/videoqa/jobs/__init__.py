"""The life of a job in Redis: the ledger, its Lua scripts, and every key."""

from videoqa.jobs.bulk_actions import BulkActions, new_bulk_id, select_for
from videoqa.jobs.cached_object import CachedObject
from videoqa.jobs.connection import (
    ENCODING_ERRORS,
    MAX_CONNECTIONS,
    connect,
    connect_replica,
    execute_each,
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
from videoqa.jobs.fleet_stats import make_stats
from videoqa.jobs.key_quota import DAY_S, KeyQuota, seconds_left_of_day
from videoqa.jobs.keys import Keys, queue_name, quote_tenant
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
from videoqa.jobs.runs import RunLog
from videoqa.jobs.selection import JobSelection, ListedJobs
from videoqa.jobs.sentinels import PrimaryFinder, SentinelReply
from videoqa.jobs.server_checks import DemotedError, WrongServerError, make_leaving_class
from videoqa.jobs.settling import AnyFuture, settle_all
from videoqa.jobs.shared_reader import SharedReader
from videoqa.jobs.submission import (
    Submission,
    SubmitResult,
    digest_idempotency_key,
    new_job_id,
)

__all__ = [
    "DAY_S",
    "ENCODING_ERRORS",
    "MAX_CONNECTIONS",
    "AnyFuture",
    "BulkActions",
    "CachedObject",
    "Claim",
    "ClaimResult",
    "DemotedError",
    "EventCursor",
    "JobSelection",
    "KeyQuota",
    "Keys",
    "Ledger",
    "LedgerReader",
    "ListCursor",
    "ListedJobs",
    "PrimaryFinder",
    "Progress",
    "ReapResult",
    "ReplicaReader",
    "RunLog",
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
    "digest_idempotency_key",
    "execute_each",
    "explain_broken",
    "find_eviction_policy",
    "is_permission_error",
    "make_finder",
    "make_leaving_class",
    "make_retry",
    "make_stats",
    "new_bulk_id",
    "new_job_id",
    "queue_name",
    "quote_tenant",
    "seconds_left_of_day",
    "select_for",
    "server_address",
    "server_name",
    "settle_all",
    "translate_redis_errors",
]
