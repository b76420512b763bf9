"""The engine on a GPU: videoqa against the guide's loop and `generate` in batches, in one run.

    python benchmarks/engine/gpu.py [--models 0.5b 7b] [--frames 8 32] [--in-flight 1 4 16 64] [--json]

Builds the architectures of LLaVA-Interleave 0.5B and 7B with random weights on the device
(`gpu_models.py`): no checkpoint is needed. First, answers in float32 and bfloat16 are compared token by
token with single `generate`; in bfloat16 a near tie may fall either way, so the gap between the two logits
is told where they first differ. `cold_start`: seconds from a new process to its first answer, with the
checkpoint in the page cache. Then jobs run end to end from decoded frames (720p, RGB, in memory) to 64 answer
tokens, each with frames of its own, so many in flight. Roofs are arithmetic on what this device does
in a large matrix product and in a copy, both measured here. `reuse`: ten questions about one video.

What is taken of torch and transformers is found out by looking, and printed. `--device cpu
--tiny` runs the script itself on any machine, and says nothing about speed.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("producer", "worker", "benchmarks")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from lib.gpu_models import SHAPES, Shape, build, write  # noqa: E402
from PIL import Image  # noqa: E402

from videoqa.contract import Generation  # noqa: E402
from videoqa_worker.engine import Engine, Generated, GenerationRequest  # noqa: E402
from videoqa_worker.engine.model import kernels  # noqa: E402
from videoqa_worker.engine.model.loading import LoadedModel  # noqa: E402
from videoqa_worker.prompt import FrameInput  # noqa: E402
from videoqa_worker.settings import EngineConfig  # noqa: E402

QUESTION = "What happens in this video?"
ANSWER_TOKENS = 64
HEIGHT, WIDTH = 720, 1280
GUIDE_JOBS = 4
"""The guide's loop takes one at a time: more would not change its rate."""
BATCH = 8
"""Batch size of `generate`; halved until it fits."""


@dataclass
class Row:
    model: str
    frames: int
    who: str
    in_flight: int
    jobs: int = 0
    jobs_per_s: float | None = None
    tokens_per_s: float | None = None
    first_token_s: float | None = None
    """Median over the jobs, from submitting."""
    of_roof: float | None = None
    against_guide: float | None = None
    error: str | None = None


class Videos:
    """Decoded frames, other ones for each job."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._numbers = itertools.count()

    def next(self) -> FrameInput:
        """One that nobody has seen."""
        return self.of(next(self._numbers))

    def of(self, job: int) -> FrameInput:
        """Blocks large enough to survive the resizing."""
        shape = self._frames, HEIGHT // 80, WIDTH // 80, 3
        blocks = np.random.default_rng(job).integers(0, 256, shape, dtype=np.uint8)
        return FrameInput("video", tuple(blocks.repeat(80, axis=1).repeat(80, axis=2)))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, run: Callable[[], Any], times: int) -> float:
    """Seconds of one, the mean after a warm-up."""
    run()
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(times):
        run()
    synchronize(device)
    return (time.perf_counter() - begun) / times


def ability(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s in a matrix product, bytes/s read or written in a copy."""
    side, count = (8192, 1 << 30) if device.type == "cuda" else (512, 1 << 24)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    block, other = (torch.zeros(count, dtype=torch.uint8, device=device) for _ in range(2))
    flops = 2 * side**3 / timed(device, lambda: a @ b, 10)
    return flops, 2 * count / timed(device, lambda: other.copy_(block), 10)


def roof(shape: Shape, frames: int, rows: int, flops: float, bandwidth: float) -> float:
    """Jobs a second if nothing but arithmetic and memory traffic took time, one after the other."""
    d, prompt = shape.hidden, frames * shape.frame_tokens + 25
    tower = 26 * (4 * 1152**2 + 2 * 1152 * 4304) + 588 * 1152
    vision = frames * (2 * tower * 729 + 26 * 4 * 729**2 * 1152 + 729 * 2 * (1152 * d + d * d))
    linear = shape.layers * (4 * d * d + 3 * d * shape.inner)
    prefill = 2 * linear * prompt + shape.layers * 2 * prompt**2 * d
    step_bytes = 2 * (linear + d * shape.vocabulary) + rows * shape.kv_bytes * (
        prompt + ANSWER_TOKENS
    )
    decode_s = ANSWER_TOKENS * step_bytes / bandwidth / rows
    return 1 / ((vision + prefill) / flops + decode_s)


def paths(device: torch.device) -> dict[str, Any]:
    """Returns the features that the installed libraries offer here."""
    import importlib.util

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "memory_gib": round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        if device.type == "cuda"
        else None,
        "flash_attn": importlib.util.find_spec("flash_attn") is not None,
        "varlen_attn": importlib.util.find_spec("torch.nn.attention.varlen") is not None,
        "cuda_graphs": device.type == "cuda",
    }


# The sides


def ours(
    engine: Engine, videos: Videos, jobs: int, in_flight: int
) -> tuple[float, list[Generated]]:
    """(seconds, answers): each thread takes the next job when one is done."""
    media = [videos.next() for _ in range(jobs)]

    def answer(one: FrameInput) -> Generated:
        return engine.submit(request_of(engine, one, QUESTION)).result()

    with ThreadPoolExecutor(in_flight) as pool:
        begun = time.perf_counter()
        answers = list(pool.map(answer, media))
        return time.perf_counter() - begun, answers


def request_of(engine: Engine, media: FrameInput, question: str) -> GenerationRequest:
    inputs = engine.prompter.build([media], question)
    return GenerationRequest(inputs, generation=Generation(max_new_tokens=ANSWER_TOKENS))


def guide(loaded: LoadedModel, processor: Any, videos: Videos, jobs: int, batch: int = 1) -> float:
    """Seconds: the processor's own pixels by PIL, one `generate` a batch."""
    frames = [videos.next().frames for _ in range(jobs)]
    begun = time.perf_counter()
    for first in range(0, jobs, batch):
        generate(loaded, processor, frames[first : first + batch])
    synchronize(loaded.model.device)
    return time.perf_counter() - begun


def generate(
    loaded: LoadedModel, processor: Any, jobs: Sequence[Sequence[np.ndarray]]
) -> list[Any]:
    """The guide's recipe; the tokens of each answer."""
    texts = [
        f"<|im_start|>user\n{'<image>' * len(frames)}\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
        for frames in jobs
    ]
    images = [[Image.fromarray(frame) for frame in frames] for frames in jobs]
    inputs = processor(text=texts, images=images, return_tensors="pt", padding=True)
    model = loaded.model
    inputs = inputs.to(model.device, model.dtype)
    with torch.inference_mode():
        out = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=ANSWER_TOKENS,
            pad_token_id=loaded.generation.pad,
        )
    return [row.tolist() for row in out[:, inputs["input_ids"].shape[1] :]]


# The parts of the run


def engine_on(loaded: LoadedModel, args: argparse.Namespace, **settings: Any) -> Engine:
    settings["attn_implementation"] = args.attention
    config = EngineConfig(model="random", device=args.device, **settings)
    return Engine(config, loader=lambda *_: loaded)


def kv_tokens(loaded: LoadedModel, args: argparse.Namespace) -> int:
    """Returns the KV positions that fit beside the weights, the two caches and 10 GiB of activations."""
    if loaded.model.device.type != "cuda":
        return 65_536
    free, total = torch.cuda.mem_get_info(loaded.model.device)
    token_bytes = SHAPES[args.model].kv_bytes
    return max(8192, int((free - 0.1 * total - 10 * 2**30) / token_bytes))


def attention(device: torch.device, dtype: torch.dtype, models: Sequence[str]) -> dict[str, Any]:
    """Measures the microseconds of a layer in a step, by each kernel that is here and right.

    `path` is the one that engines take, unless they are told.
    """
    found: dict[str, Any] = {}
    on_gpu = device.type == "cuda"
    positions = 6144 if on_gpu else 256
    for model in models:
        count = SHAPES[model].heads
        heads = kernels.Heads(count, count, SHAPES[model].hidden // count)
        path = kernels.choose_fastest(heads, dtype, device, as_graphs=True)
        found[f"{model}, path"] = path or "sdpa"
        for rows in (1, 16, 64):
            taken = kernels.time_kernels(
                heads, dtype, device, as_graphs=on_gpu, batch=rows, positions=positions
            )
            found[f"{model}, {rows} rows"] = {name: round(1e6 * s, 1) for name, s in taken.items()}
            free(device)
    return found


def parity(device: torch.device, args: argparse.Namespace, dtype: torch.dtype) -> dict[str, Any]:
    """Answers of a busy engine against single `generate`, in one precision."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    loaded, _ = build("0.5b", device, dtype, layers=args.layers)
    # The same weights: an engine changes the attention and the layers of the model that it runs.
    untouched, _ = build("0.5b", device, dtype, layers=args.layers)
    videos = Videos(2)
    jobs = [videos.of(job) for job in range(6)]
    # The engine's own pixels go to both sides: what is compared is what the engine does with them.
    with engine_on(loaded, args, max_batch_tokens=32_768) as engine:
        requests = [request_of(engine, media, QUESTION) for media in jobs]
        alone = [plain(untouched, request) for request in requests]
        futures = [engine.submit(request) for request in requests]
        together = [list(future.result().tokens) for future in futures]
    gaps = [
        gap_at_difference(untouched, *answers)
        for answers in zip(requests, alone, together, strict=True)
        if answers[1] != answers[2]
    ]
    return {
        "answers": len(jobs),
        "identical": len(jobs) - len(gaps),
        "distinct": len({tuple(answer) for answer in alone}),
        "largest_gap": max(gaps, default=0.0),
    }


def gap_at_difference(
    loaded: LoadedModel, request: GenerationRequest, alone: list[int], together: list[int]
) -> float:
    """Margin of the model's own token where two answers part, in standard deviations of the logits."""
    at = next(n for n, pair in enumerate(zip(alone, together, strict=True)) if pair[0] != pair[1])
    inputs, device = request.inputs, loaded.model.device
    ids = torch.cat(
        [inputs.input_ids.to(device), torch.tensor([alone[:at]], dtype=torch.long, device=device)],
        dim=1,
    )
    with torch.inference_mode():
        logits = loaded.model(
            input_ids=ids, pixel_values=pixels_of(loaded, request), logits_to_keep=1
        ).logits
    last = logits[0, -1].float()
    return round(float((last[alone[at]] - last[together[at]]) / last.std()), 4)


def pixels_of(loaded: LoadedModel, request: GenerationRequest) -> torch.Tensor:
    """Normalised pixels on the model's device."""
    inputs, model = request.inputs, loaded.model
    normalise = inputs.normalisations["image"]
    return normalise(inputs.images["pixel_values"], model.device, model.dtype)


def plain(loaded: LoadedModel, request: GenerationRequest) -> list[int]:
    """One `generate` on a request's own inputs."""
    inputs, model = request.inputs, loaded.model
    with torch.inference_mode():
        out = model.generate(
            input_ids=inputs.input_ids.to(model.device),
            attention_mask=inputs.attention_mask.to(model.device),
            pixel_values=pixels_of(loaded, request),
            do_sample=False,
            max_new_tokens=ANSWER_TOKENS,
        )
    tokens: list[int] = out[0, inputs.length :].tolist()
    return tokens


def rates(loaded: LoadedModel, processor: Any, frames: int, args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    videos = Videos(frames)
    guide(loaded, processor, videos, 1)
    first = Row(args.model, frames, "guide", 1, GUIDE_JOBS)
    measure(first, partial(guide, loaded, processor, videos, GUIDE_JOBS))
    rows.append(compared(first, first, args))
    rows.append(compared(batched(loaded, processor, videos, args.model, frames), first, args))
    free(loaded.model.device)
    threads, most = torch.get_num_threads(), max(args.in_flight)
    torch.set_num_threads(1)  # as a worker beside a GPU does: many jobs, a thread each
    with engine_on(
        loaded, args, max_batch=most, max_batch_tokens=kv_tokens(loaded, args)
    ) as engine:
        ours(engine, videos, most, most)  # captures its graphs
        for in_flight in args.in_flight:
            jobs = max(4, min(args.most_jobs, (3 if frames < 32 else 2) * in_flight))
            row = Row(args.model, frames, "videoqa", in_flight, jobs)
            measure(row, partial(ours, engine, videos, jobs, in_flight))
            rows.append(compared(row, first, args))
    torch.set_num_threads(threads)
    free(loaded.model.device)
    return rows


def compared(row: Row, first: Row, args: argparse.Namespace) -> Row:
    if row.jobs_per_s:
        limit = roof(SHAPES[row.model], row.frames, row.in_flight, *args.ability)
        row.of_roof = row.jobs_per_s / limit
        row.against_guide = row.jobs_per_s / (first.jobs_per_s or 1)
    print(line(row), file=sys.stderr, flush=True)
    return row


def batched(loaded: LoadedModel, processor: Any, videos: Videos, model: str, frames: int) -> Row:
    size = BATCH if frames < 32 else BATCH // 2
    while True:
        row = Row(model, frames, "generate in batches", size, 2 * size)
        measure(row, partial(guide, loaded, processor, videos, 2 * size, size))
        if row.error is None or "memory" not in row.error or size == 1:
            return row
        free(loaded.model.device)
        size //= 2


def measure(row: Row, run: Callable[[], Any]) -> None:
    try:
        found = run()
    except Exception as error:  # noqa: BLE001 - a row that fails says so, the others go on
        row.error = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        return
    seconds, answers = found if isinstance(found, tuple) else (found, [])
    row.jobs_per_s = row.jobs / seconds
    row.tokens_per_s = row.jobs_per_s * ANSWER_TOKENS
    if answers:
        row.first_token_s = float(np.median([answer.first_token_s for answer in answers]))


def reuse(loaded: LoadedModel, args: argparse.Namespace) -> dict[str, Any]:
    """Ten questions about one video: with what is kept, and without; both warm."""
    questions = [f"What happens at number {n}?" for n in range(10)]
    found: dict[str, Any] = {}
    free(loaded.model.device)  # or the last engine's memory would leave room for one row only
    for name, kept in {"kept": None, "not kept": 0}.items():
        with engine_on(
            loaded,
            args,
            max_batch=16,
            max_batch_tokens=min(kv_tokens(loaded, args), 131_072),
            feature_cache_bytes=kept,
            prefix_cache_bytes=kept,
        ) as engine:
            for job in (100, 101):
                media = Videos(8).of(job)
                begun = time.perf_counter()
                requests = [request_of(engine, media, question) for question in questions]
                built = time.perf_counter()
                for future in [engine.submit(request) for request in requests]:
                    future.result()
                found[name] = {
                    "prompts_s": round(built - begun, 3),
                    "answers_s": round(time.perf_counter() - built, 3),
                }
        free(loaded.model.device)
    return found


COLD_START = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
from videoqa.contract import Generation
from videoqa_worker.engine import Engine, GenerationRequest
from videoqa_worker.prompt import FrameInput
from videoqa_worker.settings import EngineConfig
config = EngineConfig(model={folder!r}, device={device!r}, dtype={dtype!r}, max_batch=16)
with Engine(config) as engine:
    frames = [np.zeros(({height}, {width}, 3), np.uint8)] * 8
    inputs = engine.prompter.build([FrameInput("video", tuple(frames))], "What happens?")
    request = GenerationRequest(inputs, generation=Generation(max_new_tokens=1))
    assert engine.submit(request).result().tokens
    print("answered", flush=True)
"""


def cold_start(device: torch.device, dtype: torch.dtype, name: str) -> dict[str, float]:
    """Seconds from a new process to its first answer, and of them the imports of torch and transformers alone."""
    with tempfile.TemporaryDirectory() as folder:
        write(name, Path(folder), dtype)
        for file in Path(folder).iterdir():
            file.read_bytes()  # into the page cache
        source = COLD_START.format(
            paths=[str(ROOT / part) for part in ("producer", "worker")],
            folder=folder,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            height=HEIGHT,
            width=WIDTH,
        )
        return {
            "imports_s": seconds_of(
                "import torch, transformers; transformers.LlavaForConditionalGeneration"
            ),
            "first_answer_s": seconds_of(source),
        }


def seconds_of(source: str) -> float:
    """Seconds of a new Python that runs the source."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", source], check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - begun, 2)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def line(row: Row) -> str:
    start = f"{row.model:5} {row.frames:3} frames {row.in_flight:3} in flight  {row.who:20}"
    if row.jobs_per_s is None:
        return f"{start} {row.error}"
    first = f"{row.first_token_s:7.3f} s to first token" if row.first_token_s else " " * 25
    return (
        f"{start} {row.jobs_per_s:7.2f} jobs/s {row.tokens_per_s or 0:8.0f} tokens/s {first}"
        f" {100 * (row.of_roof or 0):5.1f} % of the roof {row.against_guide or 0:6.1f}x the guide"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["0.5b", "7b"])
    parser.add_argument("--frames", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--in-flight", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--most-jobs", type=int, default=192)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--attention", choices=["sdpa"], help="no kernel without masks, to compare")
    parser.add_argument("--tiny", action="store_true", help="two layers each: to try the script")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    args.layers = 2 if args.tiny else None
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    found: dict[str, Any] = {"paths": paths(device)}
    args.ability = ability(device, dtype)
    found["tflops"], found["tb_per_s"] = (round(value / 1e12, 2) for value in args.ability)
    print(json.dumps(found), file=sys.stderr, flush=True)
    found["parity"] = {}
    for precision in (torch.float32, torch.bfloat16):
        found["parity"][str(precision)] = parity(device, args, precision)
        free(device)
    print(json.dumps(found["parity"]), file=sys.stderr, flush=True)
    found["cold_start"] = cold_start(device, dtype, "small" if args.tiny else "0.5b")
    print(json.dumps(found["cold_start"]), file=sys.stderr, flush=True)
    found["attention"] = attention(device, dtype, args.models)
    print(json.dumps(found["attention"]), file=sys.stderr, flush=True)
    rows: list[Row] = []
    for frames, model in itertools.product(args.frames, args.models):
        args.model = model
        loaded, processor = build(model, device, dtype, layers=args.layers)
        rows += rates(loaded, processor, frames, args)
        if frames == args.frames[0]:
            found[f"reuse {model}"] = reuse(loaded, args)
            print(json.dumps({"reuse": found[f"reuse {model}"]}), file=sys.stderr, flush=True)
        del loaded
        free(device)
    found["rows"] = [asdict(row) for row in rows]
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
