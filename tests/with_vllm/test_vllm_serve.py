"""vLLM's own server gets the frames of a video as a video, with their times, and answers as our engine does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from with_vllm.test_vllm_answers import shot

from videoqa.contract import Generation
from videoqa_worker.embedded.process import ServerProcess, free_port
from videoqa_worker.engine import Engine, MediaQuestion, ServerEngine
from videoqa_worker.settings import EngineConfig, ServerConfig

START_S = 500.0
"""Limit of a start on a busy machine."""
SERVE = "from vllm.entrypoints.launchers.api_server.entry import main; main()"
"""`vllm serve`, whose command line does not start in the CPU's build: it asks for the version of `vllm`."""


@pytest.fixture(scope="module")
def server_url(
    vllm_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """`vllm serve` with a tiny Qwen2-VL, which trusts its clients with settings of media."""
    port, folder = free_port(), tmp_path_factory.mktemp("serve")
    options = (
        "--host 127.0.0.1 --dtype float32 --enforce-eager --max-model-len 2048 --trust-request-mm-kwargs "
        f"--no-mm-device-do-normalize --served-model-name tiny --port {port}"
    )
    settings = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with ServerProcess(
        "vllm serve",
        [
            sys.executable,
            "-c",
            SERVE,
            "--model",
            str(vllm_checkpoint("qwen2_vl")),
            *options.split(),
        ],
        log_path=folder / "serve.log",
        env=os.environ | settings,
    ):
        yield f"http://127.0.0.1:{port}/v1"


def test_the_server_gets_a_video_and_says_the_same(
    server_url: str, vllm_config: Callable[..., EngineConfig]
) -> None:
    generation = Generation(max_new_tokens=20)
    media = [[shot("qwen2_vl", 1, 3)], [shot("qwen2_vl", 2, 4), shot("qwen2_vl", 4, 0)]]
    config = ServerConfig(url=server_url, model="tiny", videos="video_url", start_s=START_S)
    with ServerEngine(config) as there, Engine(vllm_config("qwen2_vl")) as here:
        for items in media:
            question = MediaQuestion(items, "What is it?", generation=generation)
            answers = [engine.ask(question).result(START_S) for engine in (there, here)]
            assert answers[0].text == answers[1].text
            assert answers[0].input_tokens == answers[1].input_tokens
