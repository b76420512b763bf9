"""Compare slots with the model's own `generate` for models outside of the LLaVA family, by turns in one run.

    python benchmarks/engine/slots.py [--turns 3] [--large] [--json]

Peer: the same engine with `batching=generate`, which runs these models a question at a time with transformers'
`generate`; LLaVA with a window as a left-padded batch. Both get eight questions at once: four about different pictures,
four about the same. Models have random weights: those of the tests (0.2 M parameters), or with `--large` one of
about 100 M for each kind of attention. Answers have to be equal, token by token. CPU time is that of the process on
one torch thread; caches are emptied before each turn; the figure is the median of the turns' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support import architectures
from support.engine import TOGETHER, answers, ask
from support.models import clip, picture
from support.other_models import TEXT, write_model

from videoqa_worker.engine import Engine
from videoqa_worker.settings import EngineConfig

SMALL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "gemma3", "llava_window")
LARGE = ("qwen2_5_vl", "qwen3_vl", "glm4v", "llava_window")
"""Those whose tiny checkpoints of the tests can be enlarged."""
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def enlarge() -> None:
    """Makes the text models of the tests larger."""
    TEXT.update(SIZES)
    plain = architectures.make_model

    def make(*args: Any, vision: dict[str, Any], **settings: Any) -> Any:
        if "out_hidden_size" in vision:
            vision = {**vision, "out_hidden_size": SIZES["hidden_size"]}
        return plain(*args, vision=vision, **settings)

    architectures.make_model = make


def make_requests(engine: Engine) -> list[Any]:
    wide = {"height": 60, "width": 100}
    texts = ("Why is that?", "What is it?", "Who runs, and where to?", "And then?")
    several = [
        ask(engine, [clip(n, 1 + n, **wide)], text, max_new_tokens=32)
        for n, text in enumerate(texts)
    ]
    media = [clip(9, 4, **wide), picture(3, height=100, width=60)]
    return several + [
        ask(engine, media, f"What is {'very ' * n}red?", max_new_tokens=32) for n in range(4)
    ]


def compare(name: str, turns: int) -> dict[str, Any]:
    made: dict[str, Any] = {**architectures.ARCHITECTURES, **architectures.WINDOWS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        write_model(made[name], Path(folder), bos=name in architectures.BEGINNING)
        engines = {
            batching: stack.enter_context(
                Engine(
                    EngineConfig(
                        model=folder,
                        device="cpu",
                        cpu_threads=1,
                        batching=batching,
                        max_batch_tokens=4096,
                        pack_from_tokens=64,
                        **TOGETHER,
                    )
                )
            )
            for batching in ("slots", "generate")
        }
        runners = {kind: type(engine._runner).__name__ for kind, engine in engines.items()}
        if runners != {"slots": "ContinuousRunner", "generate": "PaddedRunner"}:
            raise SystemExit(f"{name} runs as {runners}")
        parameters = sum(one.numel() for one in engines["slots"]._loaded.model.parameters())
        requests = {kind: make_requests(engine) for kind, engine in engines.items()}
        spent: dict[str, list[float]] = {kind: [] for kind in engines}
        for turn in range(turns + 1):
            found = {}
            order = list(engines) if turn % 2 else list(reversed(engines))
            for kind in order:
                engines[kind].clear_caches()
                begun = time.process_time()
                found[kind] = [one.tokens for one in answers(engines[kind], requests[kind])]
                if turn:  # the first one warms up
                    spent[kind].append(time.process_time() - begun)
            if found["slots"] != found["generate"]:
                raise SystemExit(f"{name}: the answers differ")
    ratios = [mine / other for mine, other in zip(spent["slots"], spent["generate"], strict=True)]
    return {
        "type": name,
        "parameters": parameters,
        "tokens": sum(map(len, found["slots"])),
        "slots_s": round(statistics.median(spent["slots"]), 3),
        "generate_s": round(statistics.median(spent["generate"]), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="models of about 100 M parameters")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.large:
        enlarge()
    rows = [compare(name, options.turns) for name in (LARGE if options.large else SMALL)]
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['type']:14} {row['parameters'] / 1e6:6.1f} M  slots {row['slots_s']:7.3f} s  generate "
            f"{row['generate_s']:7.3f} s  ratio {row['ratio']:.2f}  by turn {row['ratios']}"
        )


if __name__ == "__main__":
    main()
