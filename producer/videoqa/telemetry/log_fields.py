"""The fields of log lines: each name means one thing, in whatever event it stands."""

from __future__ import annotations

__all__ = ["CONTEXT", "EVERY_LINE", "FIELDS"]

EVERY_LINE = {
    "timestamp": "time of the line, UTC, with microseconds",
    "level": "debug, info, warning, error or critical",
    "event": "name of the event, as in the table below; `library_line` for lines of libraries",
    "message": "the line as people read it",
    "logger": "name of the logger, which begins with the package that wrote the line",
    "exception": "list of exceptions with their frames, the cause last, where the line has a traceback",
}
"""Fields of each JSON line."""

CONTEXT = {
    "job_id": "job that the line is about, libraries' lines on its threads as well",
    "attempt": "number of the attempt, from 1",
    "model": "model that the worker serves",
    "tenant": "tenant of the job, if it has one",
    "trace_id": "trace of the job, or of the request",
    "request_id": "request to the gateway, as in its answer's `x-request-id`",
}
"""Fields that a line has by the job or the request in which it was written."""

FIELDS = {
    "address": "host and port of the server, or its URL without secrets",
    "batch_id": "batch of the OpenAI routes",
    "bulk_id": "action on many jobs",
    "cached": "the answers are those of an earlier job",
    "category": "kind of the Python warning",
    "code": "stable code of the error, as in the reference",
    "decoders": "processes that decode videos",
    "delivery_id": "delivery of a webhook",
    "error": "message of the error",
    "fault": "the mistake that was found",
    "file_id": "uploaded file",
    "first_input": "URL of the first input, without secrets",
    "found": "settings that were found",
    "cores": "cores that the worker may use",
    "frames": "frames that the model saw",
    "input_tokens": "tokens of all prompts",
    "inputs": "inputs of the job",
    "kept": "the lease of a call, as it was found",
    "kernel": "attention kernel",
    "key": "key in Redis",
    "layers": "layers of the confinement that are missing",
    "method": "HTTP method",
    "ms": "milliseconds until the answer was sent, streams included",
    "name": "name of the checkpoint, or of a processor's part",
    "output_tokens": "tokens of all answers",
    "part_id": "part of an upload",
    "pid": "number of the process",
    "place": "file and line",
    "policy": "maxmemory-policy of Redis",
    "printed": "text that the process wrote",
    "questions": "questions of the job",
    "queue": "queue in Redis",
    "queued_s": "seconds in the queue since the job could begin",
    "queues": "queues that the worker serves",
    "reason": "reason, in words",
    "request": "id of the request",
    "route": "path of the route, with its parameters as names",
    "seconds": "seconds that the attempt took",
    "sequences": "sequences that are generated together",
    "setting": "variable of the environment, and what is wrong with it",
    "shown": "beginning of what was found",
    "slots": "jobs that may run at a time",
    "state": "state of the program's start",
    "status": "HTTP status",
    "store": "URL of the store or object",
    "thread": "thread in which it happened",
    "threads": "threads of the model's operations",
    "tokens": "tokens that the KV cache has room for",
    "times": "milliseconds of each kernel",
    "verdict": "fate of the attempt: the job failed, waits for its next attempt, was canceled, or is another worker's",
}
"""Fields of events."""
