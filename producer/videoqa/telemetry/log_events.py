"""The log lines of clients and gateways; those of a worker are in `videoqa_worker.log_events`."""

from __future__ import annotations

from videoqa.telemetry.log_event import LogEvent

# Any program

LIBRARY_LINE = LogEvent("library_line", "warning", "", "A line of a library; `logger` names it.")
LINE_BROKEN = LogEvent(
    "line_broken",
    "error",
    "a line of %(place)s cannot be written: %(reason)s",
    "Its text does not fit its values, or a value has no text: report it to whose code this is.",
)
PYTHON_WARNING = LogEvent(
    "python_warning",
    "warning",
    "%(category)s at %(place)s: %(reason)s",
    "Python or a library warns of a use that will change, or of a value that is doubtful.",
)
UNCAUGHT_ERROR = LogEvent(
    "uncaught_error",
    "critical",
    "%(thread)s ended by an error that nothing handles: %(error)s",
    "A fault of the program: report it, with the traceback.",
)
UNKNOWN_VARIABLE = LogEvent(
    "unknown_variable",
    "warning",
    "%(setting)s",
    "A `VIDEOQA_*` variable that no setting reads: correct its name, or unset it.",
)
START_FAILED = LogEvent(
    "start_failed",
    "critical",
    "%(error)s (%(code)s)",
    "The program ends, as its settings or its surroundings do not let it start.",
)
TRACES_NOT_EXPORTED = LogEvent(
    "traces_not_exported",
    "warning",
    "traces cannot be sent to %(address)s and are dropped, jobs go on: %(reason)s",
    "Told once until traces get there again. Look at the collector, or at OTEL_EXPORTER_OTLP_ENDPOINT.",
)
TRACES_EXPORTED_AGAIN = LogEvent(
    "traces_exported_again",
    "info",
    "traces are sent to %(address)s again",
    "The collector answers again; spans of the time between are lost.",
)
TRACING_MISSING = LogEvent(
    "tracing_missing",
    "warning",
    "variables of OpenTelemetry ask for traces, but %(name)s is not installed: pip install './producer[tracing]'",
    "The program goes on without traces. Unset OTEL_EXPORTER_OTLP_ENDPOINT, or set OTEL_SDK_DISABLED=true.",
)

# Redis, broker and storage, in clients, gateways and workers

REPLICAS_MISSING = LogEvent(
    "replicas_missing",
    "warning",
    "%(reason)s; what is lost of this worker's jobs runs again; look at the replicas",
    "Fewer replicas than VIDEOQA_WAIT_REPLICAS acknowledged a write of a worker. Told once until they do again.",
)
KEY_SKIPPED = LogEvent(
    "key_skipped",
    "warning",
    "key %(key)s is skipped: %(reason).400s",
    "A record of a newer release, or of another program: it is told once and left alone.",
)
REPLICA_AWAY = LogEvent(
    "replica_away",
    "warning",
    "reading at the primary, because the replica cannot be read: %(error)s",
    "VIDEOQA_REDIS_READ_URL does not answer; it is tried again after a while.",
)
READ_NOT_WOKEN = LogEvent(
    "read_not_woken",
    "debug",
    "a blocking read could not be woken: %(error)s",
    "A new waiter is served up to 2 s later.",
)
QUEUES_NOT_REAPED = LogEvent(
    "queues_not_reaped",
    "debug",
    "the numbers of the queues are those before a reaper's round: %(error)s",
    "No worker runs, and this client could not do the reaper's work in its place.",
)
BELL_NOT_RUNG = LogEvent(
    "bell_not_rung",
    "warning",
    "what was recorded waits, and a worker will find it late: %(error)s",
    "The broker takes no message; the job is recorded, and a reaper rings for it.",
)
NO_CONDITIONAL_WRITES = LogEvent(
    "no_conditional_writes",
    "warning",
    "the store of %(store)s knows no conditional writes; see docs/guide/deploy.md",
    "Two attempts of one job could both write its result there.",
)

# Archive runs

RUN_NOT_ANNOUNCED = LogEvent(
    "run_not_announced",
    "debug",
    "the run is not announced: %(error)s",
    "The list of archive runs lacks this one, or its last state; the run goes on.",
)
RUN_ANNOUNCER_FAILED = LogEvent(
    "run_announcer_failed",
    "debug",
    "the run is announced no more",
    "A fault of the announcer: report it, with the traceback; the run goes on.",
)

# Gateway

GATEWAY_LISTENS = LogEvent(
    "gateway_listens",
    "info",
    "the gateway listens at %(address)s",
    "It has its port and takes requests.",
)
REQUEST = LogEvent(
    "request",
    "info",
    "%(method)s %(route)s %(status)s in %(ms)s ms",
    "A request was answered. `status` 0: the caller hung up before an answer began.",
)
PROBE = LogEvent(
    "probe",
    "debug",
    "%(method)s %(route)s %(status)s in %(ms)s ms",
    "A request for `/livez`, `/readyz`, `/metrics` or a static file was answered.",
)
REQUEST_FAILED = LogEvent(
    "request_failed",
    "error",
    "request %(request)s failed",
    "A fault of the gateway: report it, with the traceback. The caller got 500 and the request's id.",
)
REQUEST_REFUSED = LogEvent(
    "request_refused",
    "error",
    "request %(request)s: %(error)s",
    "A setting or a record keeps the gateway from answering; its caller is told that the log has the reason.",
)
STREAM_CUT = LogEvent(
    "stream_cut",
    "warning",
    "a stream of events ends, and its caller may resume it: %(error)s",
    "Redis went away during the stream.",
)
STREAM_FAILED = LogEvent(
    "stream_failed",
    "error",
    "a stream of events failed",
    "A fault of the gateway: report it, with the traceback.",
)
REDIS_AWAY = LogEvent(
    "redis_away", "warning", "%(error)s", "Told at most once a minute while Redis does not answer."
)
FOLDER_FAILED = LogEvent(
    "folder_failed",
    "error",
    "the folder of files: %(error)s",
    "VIDEOQA_GATEWAY_FILES cannot be read or written; look at its rights and its disk.",
)
STORE_FAILED = LogEvent(
    "store_failed",
    "error",
    "the store of files: %(error)s",
    "The bucket of VIDEOQA_GATEWAY_FILES refuses or does not answer.",
)
INPUT_NOT_SHOWN = LogEvent(
    "input_not_shown",
    "warning",
    "an input of a job is not shown: %(error)s",
    "The store does not hand out the object, so the job's page has no player.",
)
PART_LEFT = LogEvent(
    "part_left",
    "warning",
    "part %(part_id)s is left to the end of its upload: %(error)s",
    "A part that was refused could not be deleted; the end of the upload deletes it.",
)
FILE_NOT_DELETED = LogEvent(
    "file_not_deleted",
    "warning",
    "file %(file_id)s is not deleted yet: %(error)s",
    "It is tried again after five minutes.",
)
FILE_LEFT = LogEvent(
    "file_left",
    "warning",
    "file %(file_id)s is left to the sweep: %(error)s",
    "A file that was refused could not be deleted; the sweep deletes it.",
)
SWEEP_FAILED = LogEvent(
    "sweep_failed",
    "error",
    "the sweep of files failed; it is tried again",
    "A fault of the gateway: report it, with the traceback.",
)
PROBE_HANGS = LogEvent(
    "probe_hangs",
    "warning",
    "the process of estimates hangs, and is ended",
    "The next estimate starts another.",
)
PROBE_BROKEN = LogEvent(
    "probe_broken",
    "error",
    "the process of estimates wrote no answer",
    "A fault of the process: report it, with the traceback.",
)
PROBE_ENDED = LogEvent(
    "probe_ended",
    "warning",
    "the process of estimates has ended; the next request starts another",
    "Its own lines before this one tell why.",
)
WEBHOOKS_WAIT = LogEvent(
    "webhooks_wait",
    "warning",
    "webhooks wait: %(error)s",
    "Redis does not answer; calls are made once it does.",
)
WEBHOOKS_FAILED = LogEvent(
    "webhooks_failed",
    "error",
    "webhooks failed; trying again",
    "A fault of the gateway: report it, with the traceback.",
)
DELIVERY_AGAIN = LogEvent(
    "delivery_again",
    "warning",
    "a webhook's call is made again: %(error)s",
    "Its outcome could not be noted; the receiver may see it twice.",
)
DELIVERY_UNREADABLE = LogEvent(
    "delivery_unreadable",
    "warning",
    "delivery %(delivery_id)s is unreadable; it is not made",
    "Another program wrote to this Redis, or a newer release.",
)
CHAT_NOT_CANCELED = LogEvent(
    "chat_not_canceled",
    "warning",
    "a chat was left by its caller, but its job not canceled: %(error)s",
    "Another gateway cancels it when the call's lease ends.",
)
CHAT_LEASES_NOT_RENEWED = LogEvent(
    "chat_leases_not_renewed",
    "warning",
    "the leases of chats are not renewed: %(error)s",
    "Redis does not answer.",
)
CHAT_LEASE_DROPPED = LogEvent(
    "chat_lease_dropped",
    "warning",
    "the lease %(kept)r of a chat is dropped: %(error)s",
    "It names a job that is gone, or another program wrote it.",
)
BATCH_STATE = LogEvent(
    "batch_state", "info", "batch %(batch_id)s: %(state)s", "A batch goes on, ends or waits."
)
BATCHES_NOT_FOUND = LogEvent(
    "batches_not_found",
    "warning",
    "no batch is looked for: %(error)s",
    "Redis does not answer; it is tried again.",
)
BATCH_AGAIN = LogEvent(
    "batch_again",
    "warning",
    "batch %(batch_id)s is tried again soon: %(error)s",
    "Redis, the store or the fleet does not answer.",
)
BATCH_FAILED = LogEvent(
    "batch_failed",
    "error",
    "batch %(batch_id)s is tried again soon",
    "A fault of the gateway: report it, with the traceback.",
)
BATCH_NOT_HELD = LogEvent(
    "batch_not_held",
    "warning",
    "batch %(batch_id)s: %(error)s",
    "The lease of a batch could not be renewed; after a while another gateway goes on with it.",
)
BULKS_NOT_FOUND = LogEvent(
    "bulks_not_found",
    "warning",
    "no bulk action is looked for: %(error)s",
    "Redis does not answer; it is tried again.",
)
BULK_AGAIN = LogEvent(
    "bulk_again",
    "warning",
    "bulk action %(bulk_id)s is tried again soon: %(error)s",
    "Redis does not answer.",
)
BULK_FAILED = LogEvent(
    "bulk_failed",
    "error",
    "bulk action %(bulk_id)s is tried again soon",
    "A fault of the gateway: report it, with the traceback.",
)
