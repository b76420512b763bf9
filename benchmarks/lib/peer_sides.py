"""The sides of `engine/peers.py`: each is a process with its model loaded, which answers a mix at a time.

    python benchmarks/lib/peer_sides.py SIDE CHECKPOINT ROWS

A line of JSON on stdin, `{"mix", "turn"}`, asks for the answers; the reply on stdout has their tokens, the CPU and
wall seconds that they took, and the peak of the memory. vLLM's side runs in vLLM's own environment and imports nothing
of videoqa but a file that needs torch only.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("producer", "worker", "benchmarks")]

import psutil  # noqa: E402
from lib.peer_work import Question, questions_of, write_prompt  # noqa: E402

__all__ = ["SIDES"]

Tokens = list[list[int]]
Answer = Callable[[list[Question]], Tokens]
GENERATE_BATCH = 8


def videoqa(checkpoint: str, rows: int) -> tuple[Answer, dict[str, Any]]:
    """The worker's engine. Questions about a video come as one job's do: its frames are prepared once."""
    import torch
    import transformers

    from videoqa.contract import Generation
    from videoqa_worker.engine import Engine, MediaQuestion
    from videoqa_worker.prompt import FrameInput, PreparedMedia
    from videoqa_worker.settings import EngineConfig

    config = EngineConfig(
        model=checkpoint, device="cpu", dtype="float32", cpu_threads=1, max_batch=rows
    )
    engine = Engine(config)
    engine.start()

    def answer(questions: list[Question]) -> Tokens:
        media: dict[int, PreparedMedia] = {}
        futures = []
        for one in questions:
            video = FrameInput("video", tuple(one.frames))
            shown = media.setdefault(id(one.frames), PreparedMedia([video]))
            generation = Generation(max_new_tokens=one.answer_tokens)
            futures.append(engine.ask(MediaQuestion(shown, one.text, generation=generation)))
        return [list(future.result().tokens) for future in futures]

    said = {"torch": torch.__version__, "transformers": transformers.__version__}
    return answer, {**said, "settings": f"defaults, max_batch {rows}, 1 thread, float32"}


def vllm(checkpoint: str, rows: int) -> tuple[Answer, dict[str, Any]]:
    """vLLM's offline engine, in this process."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    _mend_torchvision()
    import torch
    import transformers
    import vllm as package
    from PIL import Image
    from vllm import LLM, SamplingParams

    model = LLM(
        checkpoint,
        dtype="float32",
        max_num_seqs=rows,
        max_model_len=8192,
        max_num_batched_tokens=8192,
        limit_mm_per_prompt={"image": 8},
        enforce_eager=True,
        disable_log_stats=True,
        seed=0,
    )

    def answer(questions: list[Question]) -> Tokens:
        prompts: list[Any] = []
        for one in questions:
            images = [Image.fromarray(frame) for frame in one.frames]
            prompts.append({"prompt": write_prompt(one), "multi_modal_data": {"image": images}})
        params = [
            SamplingParams(temperature=0.0, max_tokens=one.answer_tokens, ignore_eos=True)
            for one in questions
        ]
        outputs = model.generate(prompts, params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    said = {
        "vllm": package.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    settings = f"eager, max_num_seqs {rows}, 8,192 batched tokens, 1 GiB of KV, 1 thread, float32"
    return answer, {**said, "settings": settings}


def guide(checkpoint: str, rows: int) -> tuple[Answer, dict[str, Any]]:
    """The Hugging Face video guide's loop: the checkpoint's processor and `generate`, a question at a time."""
    return _generate(checkpoint, 1)


def generate(checkpoint: str, rows: int) -> tuple[Answer, dict[str, Any]]:
    """`generate` in left-padded batches; each runs as long as its longest answer."""
    return _generate(checkpoint, GENERATE_BATCH)


def _generate(checkpoint: str, batch: int) -> tuple[Answer, dict[str, Any]]:
    _mend_torchvision()
    import torch
    import transformers
    from PIL import Image

    torch.set_num_threads(1)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32
    )
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    processor.tokenizer.padding_side = "left"

    @torch.inference_mode()
    def answer_some(few: list[Question]) -> Tokens:
        inputs = processor(
            text=[write_prompt(one) for one in few],
            images=[Image.fromarray(frame) for one in few for frame in one.frames],
            return_tensors="pt",
            padding=True,
        )
        longest = max(one.answer_tokens for one in few)
        found = model.generate(
            **inputs, do_sample=False, max_new_tokens=longest, pad_token_id=0
        ).tolist()
        begun = inputs["input_ids"].shape[1]
        return [row[begun : begun + one.answer_tokens] for row, one in zip(found, few, strict=True)]

    def answer(questions: list[Question]) -> Tokens:
        parts = [questions[n : n + batch] for n in range(0, len(questions), batch)]
        return [tokens for part in parts for tokens in answer_some(part)]

    said = {"torch": torch.__version__, "transformers": transformers.__version__}
    return answer, {**said, "settings": f"batches of {batch}, 1 thread, float32"}


SIDES: dict[str, Callable[[str, int], tuple[Answer, dict[str, Any]]]] = {
    "videoqa": videoqa,
    "vllm": vllm,
    "guide": guide,
    "generate": generate,
}


def _mend_torchvision() -> None:
    """PyPI's torchvision does not load beside a CPU build of torch; see the file."""
    path = ROOT / "worker/videoqa_worker/engine/model/torchvision.py"
    spec = importlib.util.spec_from_file_location("_mend_torchvision", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make_importable()


def _cpu_s() -> float:
    """User and system time of this process, its ended children and those still alive."""
    ended = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    alive = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    used = sum(usage.ru_utime + usage.ru_stime for usage in ended)
    return used + sum(times.user + times.system for times in alive)


def _reply(answer: Answer, questions: list[Question]) -> dict[str, Any]:
    cpu, wall = _cpu_s(), time.perf_counter()
    try:
        tokens: Tokens | None = answer(questions)
    except Exception:  # noqa: BLE001 - the other sides go on
        traceback.print_exc()
        tokens = None
    cpu, wall = _cpu_s() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"tokens": tokens, "cpu_s": cpu, "wall_s": wall, "peak_mib": peak}


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply
    answer, said = SIDES[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    print(json.dumps(said), file=replies, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        reply = _reply(answer, questions_of(asked["mix"], asked["turn"]))
        print(json.dumps(reply), file=replies, flush=True)
    os._exit(0)  # nothing is left to be written, and an engine's threads may wait for more


if __name__ == "__main__":
    main()
