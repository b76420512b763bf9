"""vLLM's processes fail, or do not start: questions end with a code, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support.models import clip
from support.processes import wait_until

from videoqa.contract import Generation
from videoqa.errors import ConfigurationError, EngineStopped
from videoqa_worker.engine import MediaQuestion, VllmEngine
from videoqa_worker.settings import EngineConfig

START_S = 400.0
"""Limit of a start on a busy machine."""
TITLES = ("spawn_main", "VLLM::")
HELD = """
import sys
from videoqa_worker.engine import VllmEngine
from videoqa_worker.settings import EngineConfig

if __name__ == "__main__":
    with VllmEngine(EngineConfig.model_validate_json(sys.argv[1])):
        print("ready", flush=True)
        sys.stdin.read()
"""
"""A process that holds an engine until its input ends."""


def list_children(pid: int) -> list[psutil.Process]:
    """Lists vLLM's processes, its scheduler first: those with its title, and those that have none yet."""
    found = psutil.Process(pid).children(recursive=True)
    return [one for one in found if any(word in " ".join(read_command(one)) for word in TITLES)]


def read_command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def run(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_too_little_memory_is_a_start_error_that_names_the_setting(
    vllm_config: Callable[..., EngineConfig],
) -> None:
    before = set(list_children(os.getpid()))
    config = vllm_config("interleave", engine="vllm", max_batch_tokens=256)
    with pytest.raises(ConfigurationError) as caught, VllmEngine(config):
        pass
    assert "KV cache" in str(caught.value)
    assert "VIDEOQA_MAX_CONTEXT" in str(caught.value)
    wait_until(lambda: not any(map(run, set(list_children(os.getpid())) - before)))


def test_a_model_that_vllm_lacks_is_refused_with_a_next_step(
    vllm_config: Callable[..., EngineConfig], tmp_path: Path
) -> None:
    from support.models import write_checkpoint

    folder = write_checkpoint("video_llava", tmp_path)
    config = vllm_config("interleave", engine="vllm").model_copy(update={"model": str(folder)})
    with pytest.raises(ConfigurationError, match="VIDEOQA_ENGINE=transformers"), VllmEngine(config):
        pass


def test_questions_end_when_its_process_is_killed(
    vllm_config: Callable[..., EngineConfig],
) -> None:
    before = set(list_children(os.getpid()))
    begun = threading.Event()
    with VllmEngine(vllm_config("interleave", engine="vllm")) as engine:
        question = MediaQuestion(
            [clip(1, 2)],
            "Go on.",
            generation=Generation(max_new_tokens=1500),
            on_progress=lambda tokens: begun.set(),
        )
        running = engine.ask(question)
        assert begun.wait(START_S)
        children = sorted(set(list_children(os.getpid())) - before, key=lambda one: one.pid)
        for child in children:
            child.send_signal(signal.SIGTERM)  # as a supervisor that signals all: none of them ends
        begun.clear()
        assert begun.wait(START_S)
        children[0].kill()
        with pytest.raises(EngineStopped) as caught:
            running.result(START_S)
        assert caught.value.had_begun
        wait_until(lambda: not engine.ready)
        with pytest.raises(EngineStopped):
            engine.ask(question).result(START_S)
    wait_until(lambda: not any(map(run, children)))


def test_its_processes_end_when_the_worker_is_killed(
    vllm_config: Callable[..., EngineConfig], tmp_path: Path
) -> None:
    script = tmp_path / "held.py"
    script.write_text(HELD)
    config = vllm_config("interleave", engine="vllm").model_dump_json(by_alias=True)
    with subprocess.Popen(
        [sys.executable, script, config], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        children = list_children(process.pid)
        assert children
        process.kill()
    wait_until(lambda: not any(map(run, children)))
