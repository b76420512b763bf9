"""The log lines of a worker and of its decoding processes; those of clients and gateways are in `videoqa.telemetry`."""

from __future__ import annotations

from videoqa.telemetry.log_event import LogEvent

# Start and end

IMPORTING = LogEvent(
    "importing", "info", "importing torch and transformers", "The first seconds of a start."
)
STARTING = LogEvent("starting", "info", "%(state)s", "A step of loading the model.")
ENGINE_SIZED = LogEvent(
    "engine_sized",
    "info",
    "%(threads)d of %(cores)d cores for the model, %(sequences)d sequences at a time, %(tokens)d tokens of KV cache: "
    "%(reason)s",
    "The sizes that were chosen or set, and where those of the memory come from.",
)
METRICS_SERVED = LogEvent(
    "metrics_served",
    "info",
    "metrics at http://%(address)s/metrics",
    "Prometheus can scrape the worker there.",
)
GPU_METRICS_MISSING = LogEvent(
    "gpu_metrics_missing",
    "debug",
    "no metrics of GPUs: %(error)s",
    "NVIDIA's driver or the package `nvidia-ml-py` is not installed, or NVML failed.",
)
READY = LogEvent(
    "ready",
    "info",
    "ready: %(name)s, %(slots)d slots, %(decoders)d decoders, queues %(queues)s",
    "The model is loaded, and the worker claims jobs.",
)
REDIS_AWAY_AT_START = LogEvent(
    "redis_away_at_start",
    "warning",
    "%(error)s; this worker keeps trying",
    "The model is loaded meanwhile.",
)
EVICTION_POLICY = LogEvent(
    "eviction_policy",
    "warning",
    "%(address)s has maxmemory-policy %(policy)s, expected noeviction: once it is full it drops jobs silently; "
    "set `maxmemory-policy noeviction`",
    "A full Redis should refuse submits instead of dropping jobs.",
)
NOT_ANNOUNCED = LogEvent(
    "not_announced",
    "warning",
    "not announced yet: %(error)s",
    "Redis does not answer, so `videoqa status` does not list this worker yet.",
)
NOT_REMOVED = LogEvent(
    "not_removed",
    "warning",
    "could not remove this worker from the list of workers: %(error)s",
    "It disappears from the list by itself within seconds.",
)
WORKER_ENDS = LogEvent(
    "worker_ends",
    "critical",
    "%(fault)s; this worker ends, and its jobs are tried again",
    "The engine hangs or its device is broken. The supervisor starts the worker again.",
)
CLAIMS_END = LogEvent(
    "claims_end",
    "warning",
    "%(error)s; this worker ends",
    "Redis does not answer a worker that shuts down.",
)

# Jobs

JOB_STARTED = LogEvent("job_started", "info", "job started", "A job was claimed.", ("queued_s",))
JOB_SUCCEEDED = LogEvent(
    "job_succeeded",
    "info",
    "job has succeeded model=%(name)s inputs=%(inputs)d first_input=%(first_input)s questions=%(questions)d "
    "frames=%(frames)d input_tokens=%(input_tokens)d output_tokens=%(output_tokens)d seconds=%(seconds).2f "
    "cached=%(cached)s",
    "The result is stored.",
)
JOB_CANCELED = LogEvent(
    "job_canceled", "info", "job was canceled", "Somebody canceled the job while it ran."
)
JOB_FOLLOWS = LogEvent(
    "job_follows",
    "info",
    "another job asks the same; this one waits for it",
    "The job gets the other one's answer.",
)
JOB_GIVEN_BACK = LogEvent(
    "job_given_back",
    "info",
    "job given back",
    "This worker stops; the job is queued again, and the attempt is not counted.",
)
JOB_LOST = LogEvent(
    "job_lost",
    "warning",
    "%(error)s",
    "The lease had ended, so another worker has the job, and this attempt's answers are dropped.",
)
RESULT_LOST = LogEvent(
    "result_lost",
    "warning",
    "job is another worker's",
    "The lease had ended before the result was stored; the other worker stores its own.",
)
LEASE_LEFT = LogEvent(
    "lease_left",
    "warning",
    "%(error)s; the job's lease ends by itself",
    "Redis does not answer a worker that shuts down. The job runs elsewhere.",
)
ATTEMPT_FAILED = LogEvent(
    "attempt_failed",
    "warning",
    "attempt ended (%(verdict)s): %(code)s: %(error)s",
    "The attempt failed; the reference has the code with its next step.",
)
JOB_ERROR = LogEvent(
    "job_error",
    "error",
    "job met an unexpected error",
    "A fault of the worker: report it, with the traceback. The attempt ends with `internal_error`.",
)
NO_JOB = LogEvent("no_job", "debug", "no job: %(reason)s", "A claim found nothing.")
CLAIM_FAILED = LogEvent(
    "claim_failed",
    "error",
    "a claim failed",
    "A fault of the worker: report it, with the traceback.",
)
WAITING_FOR_REDIS = LogEvent(
    "waiting_for_redis",
    "warning",
    "waiting for Redis: %(error)s",
    "The call is repeated until Redis answers.",
)
LEASES_NOT_RENEWED = LogEvent(
    "leases_not_renewed",
    "warning",
    "leases can't be renewed, jobs go on: %(error)s",
    "Told once until they are renewed again.",
)
HEARTBEAT_FAILED = LogEvent(
    "heartbeat_failed",
    "error",
    "a heartbeat failed",
    "A fault of the worker: report it, with the traceback.",
)
PROGRESS_FAILED = LogEvent(
    "progress_failed",
    "error",
    "reports of progress could not be written",
    "A fault of the worker: report it, with the traceback.",
)
STORING_AGAIN = LogEvent(
    "storing_again",
    "warning",
    "%(error)s; trying again",
    "The object store did not take the result.",
)
NO_SHEET = LogEvent(
    "no_sheet",
    "warning",
    "no sheet is kept: %(error)s",
    "The job goes on; its result has a warning.",
)
CACHED_ANSWER_CHANGED = LogEvent(
    "cached_answer_changed",
    "warning",
    "%(store)s is no longer the answer that was stored there; asking the model again. If no later job replaced it, "
    "find out who may write into the results' storage",
    "The object's SHA-256 is not the one that Redis holds.",
)
CACHED_ANSWER_UNREADABLE = LogEvent(
    "cached_answer_unreadable",
    "info",
    "cannot read the answer of an earlier job, asking the model again: %(error)s",
    "It was deleted, or the store does not answer.",
)

# Engine

NO_KERNELS = LogEvent(
    "no_kernels",
    "warning",
    "attention kernels cannot be tried, decoding uses masks; VIDEOQA_ATTN_IMPLEMENTATION=sdpa tries none: %(error)s",
    "Decoding is a little slower.",
)
KERNEL_CHOSEN = LogEvent(
    "kernel_chosen",
    "info",
    "decode attention of one layer takes %(times)s: using %(kernel)s",
    "The fastest kernel that is right.",
)
KERNEL_WRONG = LogEvent(
    "kernel_wrong",
    "warning",
    "attention by %(kernel)s is wrong by %(fault).2g: it is not used",
    "A kernel differs from the reference on this GPU.",
)
KERNEL_MISSING = LogEvent(
    "kernel_missing",
    "debug",
    "no attention by %(kernel)s: %(error)s",
    "It is not installed, too old, or not for this GPU.",
)
REFERENCE_PIXELS = LogEvent(
    "reference_pixels",
    "warning",
    "%(name)s: reference pixels, slower, because %(reason)s",
    "The checkpoint's processor has steps that the fast one does not know.",
)
FAST_PIXELS = LogEvent(
    "fast_pixels",
    "info",
    "%(name)s: fast pixels",
    "Frames are resized as bytes, as VIDEOQA_PIXELS asks.",
)
PROMPT_WARNING = LogEvent(
    "prompt_warning",
    "warning",
    "%(name)s: %(reason)s",
    "The prompts are a guess: the checkpoint has no chat template. Each result says so as well.",
)
SAMPLING_NOT_USED = LogEvent(
    "sampling_not_used",
    "info",
    "%(name)s states %(found)s, which are not used: an answer is greedy unless its request gives a temperature",
    "Sampling is the request's: a checkpoint's defaults for it have no effect.",
)
NO_END_TOKEN = LogEvent(
    "no_end_token",
    "warning",
    "%(name)s never writes an end token: its answers end at max_new_tokens or a stop string; check eos_token_id "
    "and suppress_tokens in its generation settings",
    "The checkpoint names no end token, or forbids all of them.",
)
PADDED_BATCHES = LogEvent(
    "padded_batches",
    "info",
    "%(name)s does not fit into slots: it runs in padded batches",
    "Another architecture than those of continuous batching; slower.",
)
SLOTS_FAILED = LogEvent(
    "slots_failed",
    "warning",
    "%(name)s fails in slots, trying padded batches: %(error)s",
    "The first question failed with continuous batching.",
)
ENGINE_DIED = LogEvent(
    "engine_died",
    "critical",
    "the engine's thread died",
    "The watchdog ends the worker, and its supervisor starts it again.",
)
NO_GRAPHS = LogEvent(
    "no_graphs",
    "warning",
    "going on without CUDA graphs: %(error)s",
    "Decoding of small batches is slower; VIDEOQA_CUDA_GRAPHS=false tries none.",
)

# Decoding processes

DECODER_PRINTED = LogEvent(
    "decoder_printed",
    "warning",
    "decoding process %(pid)d printed: %(printed)s",
    "The process ended, or its command failed in a way that was not foreseen.",
)
DECODER_CHATTER = LogEvent(
    "decoder_chatter",
    "debug",
    "decoding process %(pid)d printed: %(printed)s",
    "FFmpeg remarks on a video that could be decoded.",
)
DECODER_ENDED = LogEvent(
    "decoder_ended",
    "warning",
    "decoding process %(pid)d ended between two commands",
    "Another one takes its place.",
)
NOT_CONFINED = LogEvent(
    "not_confined",
    "warning",
    "decoding is not confined by %(layers)s",
    "The kernel or the container does not allow it; see the deployment guide.",
)
ESTIMATE_FAILED = LogEvent(
    "estimate_failed",
    "error",
    "a request could not be estimated",
    "A fault of the gateway's process of estimates: report it, with the traceback.",
)

# Queue messages and Redis

BELL_DROPPED = LogEvent(
    "bell_dropped",
    "warning",
    "dropped a message that is no bell: wrong %(fault)s, which begins with %(shown)s; further ones are only counted, "
    "and jobs that wait are rung for again; find out who else writes to this broker",
    "Told once for each kind of fault.",
)
BROKER_AWAY = LogEvent(
    "broker_away",
    "error",
    "cannot connect to the broker at %(address)s: %(error)s; trying again",
    "Told once until the broker answers; meanwhile idle slots look for jobs each second.",
)
BROKER_BACK = LogEvent(
    "broker_back", "warning", "the broker can be reached again", "The outage is over."
)
CELERY_GAVE_UP = LogEvent(
    "celery_gave_up",
    "warning",
    "Celery gave up on the broker; connecting again, the model stays loaded",
    "Jobs that run go on.",
)
REAPER_HINDERED = LogEvent(
    "reaper_hindered",
    "warning",
    "the reaper cannot do all of its work: %(error)s",
    "Redis or the broker does not answer. Told once until it does.",
)
REAPER_FAILED = LogEvent(
    "reaper_failed",
    "error",
    "a round of the reaper failed",
    "A fault of the worker: report it, with the traceback.",
)
BROKER_SILENT = LogEvent(
    "broker_silent",
    "debug",
    "the broker does not say which queues are empty: %(error)s",
    "It is asked again.",
)
RINGING = LogEvent(
    "ringing",
    "info",
    "ringing for jobs of %(queue)s that are due, or that lost their worker or bell",
    "The reaper found jobs that wait without a bell.",
)
QUEUE_BROKEN = LogEvent(
    "queue_broken",
    "error",
    "Redis holds another type of value under %(key)s, expected a list of messages: no job of this queue begins here, "
    "other queues go on; delete the key (DEL), and find out who else writes to this Redis",
    "Told once until the key is mended.",
)
QUEUE_MENDED = LogEvent(
    "queue_mended", "warning", "queue %(queue)s can be read again", "The key was deleted."
)
