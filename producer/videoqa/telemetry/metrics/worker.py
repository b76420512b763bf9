"""Metrics of a worker: its attempts, their stages, its engine and its device."""

from __future__ import annotations

from videoqa.telemetry.metrics.declaration import CODE, OTHER, PRIORITY, Label, Metric

__all__ = [
    "ATTEMPTS",
    "ATTEMPT_SECONDS",
    "BELLS_DROPPED",
    "BELLS_RERUNG",
    "BUILD_INFO",
    "CACHE_REQUESTS",
    "DEVICE_METRICS",
    "ENGINE_CACHE_REQUESTS",
    "ENGINE_PREEMPTIONS",
    "ENGINE_PROMPT_TOKENS",
    "ENGINE_ROWS",
    "ENGINE_ROWS_MOST",
    "ENGINE_ROWS_RUNNING",
    "ENGINE_SHARED",
    "ENGINE_STEPS",
    "FAILURES",
    "FIRST_TOKEN_SECONDS",
    "FRAMES",
    "GPU_MEMORY",
    "GPU_MEMORY_USED",
    "GPU_UTILIZATION",
    "JOB_WAIT_SECONDS",
    "KV_TOKENS",
    "KV_TOKENS_USED",
    "LEASES_LOST",
    "OUTPUT_TOKENS",
    "OUTPUT_TOKEN_SECONDS",
    "OUT_OF_MEMORY",
    "PROMPT_TOKENS",
    "SLOTS_BUSY",
    "SOURCE_BYTES",
    "SOURCE_REQUESTS",
    "STAGES",
    "STAGE_SECONDS",
    "TOKENS",
    "WORKER_METRICS",
]

MODEL = Label("model", bound="the worker's model")
SCHEME = Label("scheme", ("file", "http", "https", "s3", OTHER))
STAGES = ("fetching", "sampling", "generating", "storing")
_MINUTES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)
_TOKENS = tuple(float(4**power) for power in range(10))
_GPU = Label("gpu", bound="the number of a GPU in its machine")

BUILD_INFO = Metric(
    "videoqa_build_info",
    "gauge",
    "1, with the worker's release and its model",
    (Label("version", bound="one"), MODEL, Label("revision", bound="one")),
)
ATTEMPTS = Metric(
    "videoqa_attempts_total",
    "counter",
    "Attempts that ended here. `succeeded`, `failed` and `canceled` end the job; `retried`: it failed and is tried "
    "again; `followed`: an equal job asks already; `given_back`: the worker stops; `lost`: it is no longer this "
    "worker's",
    (
        MODEL,
        Label(
            "outcome",
            ("succeeded", "failed", "retried", "canceled", "followed", "given_back", "lost"),
        ),
    ),
)
FAILURES = Metric(
    "videoqa_failures_total",
    "counter",
    "Attempts that failed, for good or to be tried again",
    (CODE,),
)
JOB_WAIT_SECONDS = Metric(
    "videoqa_job_wait_seconds",
    "histogram",
    "Time for which a job could have begun until its claim, without the delay before a retry",
    (PRIORITY,),
    _MINUTES,
)
ATTEMPT_SECONDS = Metric(
    "videoqa_attempt_seconds",
    "histogram",
    "Time from the claim to the attempt's end",
    (MODEL,),
    _MINUTES,
)
STAGE_SECONDS = Metric(
    "videoqa_stage_seconds",
    "histogram",
    "Time of an attempt in a stage; a stage that it did not come to is not counted",
    (Label("stage", STAGES),),
    (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600, 3600),
)
FIRST_TOKEN_SECONDS = Metric(
    "videoqa_time_to_first_token_seconds",
    "histogram",
    "Time from a question at the engine to its first token",
    (MODEL,),
    (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160),
)
OUTPUT_TOKEN_SECONDS = Metric(
    "videoqa_time_per_output_token_seconds",
    "histogram",
    "Mean time between two tokens of an answer, one value an answer",
    (MODEL,),
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
TOKENS = Metric(
    "videoqa_tokens_total",
    "counter",
    "Tokens of the answers that the model gave: of their prompts and of themselves",
    (MODEL, Label("type", ("input", "output"))),
)
PROMPT_TOKENS = Metric(
    "videoqa_prompt_tokens",
    "histogram",
    "Tokens of a prompt, one value an answer",
    (MODEL,),
    _TOKENS,
)
OUTPUT_TOKENS = Metric(
    "videoqa_output_tokens", "histogram", "Tokens of an answer", (MODEL,), _TOKENS
)
FRAMES = Metric(
    "videoqa_frames_total",
    "counter",
    "Frames that were taken for the model; exact: at the time that was asked for",
    (Label("exact", ("true", "false")),),
)
SOURCE_BYTES = Metric(
    "videoqa_source_bytes_total",
    "counter",
    "Bytes of inputs that were fetched; none of a file",
    (SCHEME,),
)
SOURCE_REQUESTS = Metric(
    "videoqa_source_requests_total", "counter", "Requests by which inputs were fetched", (SCHEME,)
)
_RESULT = Label("result", ("hit", "miss"))
CACHE_REQUESTS = Metric(
    "videoqa_cache_requests_total",
    "counter",
    "Looks for the answers of an earlier job, one an attempt whose request allows it",
    (_RESULT,),
)
ENGINE_CACHE_REQUESTS = Metric(
    "videoqa_engine_cache_requests_total",
    "counter",
    "Looks of the engine for the features of pictures, and for the KV of a prompt's beginning",
    (Label("cache", ("features", "prefixes")), _RESULT),
)
SLOTS_BUSY = Metric("videoqa_slots_busy", "gauge", "Jobs that run in this worker")
LEASES_LOST = Metric(
    "videoqa_leases_lost_total",
    "counter",
    "Attempts that ended because another worker had their job",
)
BELLS_DROPPED = Metric(
    "videoqa_bells_dropped_total", "counter", "Messages of the broker that were no bells"
)
BELLS_RERUNG = Metric(
    "videoqa_bells_rerung_total",
    "counter",
    "Bells that the reaper rang: for jobs that were due, or that lost their worker or bell",
)
ENGINE_STEPS = Metric(
    "videoqa_engine_steps_total",
    "counter",
    "Decode steps of the whole batch; 0 for models that run in padded batches or on a server",
)
ENGINE_ROWS = Metric(
    "videoqa_engine_rows_total",
    "counter",
    "Sequences over all steps; divided by the steps, the mean batch",
)
ENGINE_ROWS_RUNNING = Metric(
    "videoqa_engine_rows_running", "gauge", "Sequences that the engine runs now"
)
ENGINE_ROWS_MOST = Metric(
    "videoqa_engine_rows_most", "gauge", "Most sequences that the engine may run at a time"
)
ENGINE_SHARED = Metric(
    "videoqa_engine_shared_total",
    "counter",
    "Questions that were answered by the sequence of an equal question at the same time",
)
ENGINE_PROMPT_TOKENS = Metric(
    "videoqa_engine_prompt_tokens_total",
    "counter",
    "Positions of prompts that were computed, without those from the prefix cache",
)
KV_TOKENS = Metric(
    "videoqa_kv_tokens", "gauge", "Positions that the KV cache has for all sequences"
)
KV_TOKENS_USED = Metric("videoqa_kv_tokens_used", "gauge", "Positions that are taken")
ENGINE_PREEMPTIONS = Metric(
    "videoqa_engine_preemptions_total", "counter", "Sequences that were put back to make room"
)
OUT_OF_MEMORY = Metric(
    "videoqa_engine_out_of_memory_total", "counter", "Passes that the device had no memory for"
)
GPU_MEMORY = Metric("videoqa_gpu_memory_bytes", "gauge", "Memory of a GPU, by NVML", (_GPU,))
GPU_MEMORY_USED = Metric(
    "videoqa_gpu_memory_used_bytes", "gauge", "Its memory that is in use, by any process", (_GPU,)
)
GPU_UTILIZATION = Metric(
    "videoqa_gpu_utilization_ratio",
    "gauge",
    "Part of the last moment in which a kernel ran on it, by NVML",
    (_GPU,),
)
DEVICE_METRICS = (GPU_MEMORY, GPU_MEMORY_USED, GPU_UTILIZATION)
"""Those that only a machine with NVML has."""

WORKER_METRICS = (
    BUILD_INFO,
    ATTEMPTS,
    FAILURES,
    JOB_WAIT_SECONDS,
    ATTEMPT_SECONDS,
    STAGE_SECONDS,
    FIRST_TOKEN_SECONDS,
    OUTPUT_TOKEN_SECONDS,
    TOKENS,
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    FRAMES,
    SOURCE_BYTES,
    SOURCE_REQUESTS,
    CACHE_REQUESTS,
    ENGINE_CACHE_REQUESTS,
    SLOTS_BUSY,
    LEASES_LOST,
    BELLS_DROPPED,
    BELLS_RERUNG,
    ENGINE_STEPS,
    ENGINE_ROWS,
    ENGINE_ROWS_RUNNING,
    ENGINE_ROWS_MOST,
    ENGINE_SHARED,
    ENGINE_PROMPT_TOKENS,
    KV_TOKENS,
    KV_TOKENS_USED,
    ENGINE_PREEMPTIONS,
    OUT_OF_MEMORY,
    *DEVICE_METRICS,
)
