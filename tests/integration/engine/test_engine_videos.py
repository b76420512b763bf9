"""Models whose processor takes videos get them as videos, with the times of their frames.

Against transformers' own chat template, processor and `generate`, float32, with tiny models.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.architecture_table import PAGE, read_page
from support.newer_video_models import ALIKE, NEWER
from support.torchvision import needs_torchvision, run_python
from support.video_models import VIDEOS, WITH_EXTRA, write_video_model
from support.video_parity import BRIEF, CASES
from transformers import AutoConfig

from videoqa.contract import JobRequest
from videoqa.storage import ObjectStore
from videoqa_worker.engine import load_processor
from videoqa_worker.engine.model.processing.processor import PROCESSORS, VIDEO_PROCESSORS
from videoqa_worker.job.answer_cache import AnswerCache
from videoqa_worker.prompt import Prompter, compute_form
from videoqa_worker.sources import SourceVersion

pytestmark = needs_torchvision
Found = dict[tuple[str, str], dict[str, Any]]
AS_IMAGES = {
    "an image between two videos": {"smolvlm", "glm4v", "glm46v", "molmo2"},
    "two lengths": {"internvl", "smolvlm", "perception_lm"},
}
"""Inputs that a processor cannot take as videos, or its model not tell apart."""
NOT_COMPARED = {
    "cohere_compass",
    "cosmos3_edge",
    "dots3_note",
    "glm5_next",
    "instructblipvideo",
    "kimi_k25",
    "minicpm_ocr",
    "minicpmv4_7",
    "minimax_m3_vl",
    "muse_glimmer",
    "muse_spark",
    "nemotron_h_omni",
}
"""Types whose videos are asked about as images, with the reason in each result."""
TIMES = {
    "qwen3_5": r"<([\d.]+) seconds>",
    "lfm3_vl": r"<([\d.]+) seconds>",
    "gemma4": r"(\d\d:\d\d) <.image>",
    "molmo2": r"([\d.]+) <frame_start>",
    "qwen3_vl": r"<([\d.]+) seconds>",
    "glm4v": r"end_of_image\|>(\d+)",
    "glm46v": r"end_of_image\|>([\d.]+) seconds",
    "video_llama_3": r"Time ([\d.]+)s:",
    "smolvlm": r"Frame from (\d\d:\d\d)",
}
"""Pattern of the time of a frame, or of two together, in a prompt."""
EXPECTED = {
    "qwen3_5": ["2.5", "12.5"],
    "lfm3_vl": ["2.5", "12.5"],
    "gemma4": ["00:00", "00:05", "00:10", "00:15"],
    "molmo2": ["0.0", "5.0", "10.0", "15.0"],
    "qwen3_vl": ["2.5", "12.5"],
    "glm4v": ["0", "10"],
    "glm46v": ["0.0", "10.0"],
    "video_llama_3": ["0.0", "5.0", "10.0", "15.0"],
    "smolvlm": ["00:00", "00:05", "00:10", "00:15"],
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("videos")
    lines = map(json.loads, run_python("-m", "support.video_parity", str(folder)))
    return {(line["name"], line["case"]): line for line in lines}


@pytest.mark.parametrize("name", sorted(VIDEOS.keys() - ALIKE))
def test_a_video_reaches_the_model_as_by_its_own_processor(name: str, found: Found) -> None:
    cases = BRIEF if name in NEWER else CASES
    for case in cases:
        one = found[name, case]
        assert one["same_prompt"], (case, one["prompt"])
        assert not one["differing"], case
        assert one["ours"] == one["theirs"], case
        assert one["counted"] == one["tokens"], case
        as_images = name in AS_IMAGES.get(case, ())
        assert one["warnings"] == (["video_as_images"] if as_images else []), case
    assert len({tuple(found[name, case]["ours"]) for case in cases}) > 1
    row = read_page()[name]
    assert row.path == found[name, "a video"]["path"]
    assert row.video == (WITH_EXTRA if row.needs == "-" else "a video")


def test_workers_with_and_without_torchvision_share_no_answers(
    found: Found, tmp_path: Path
) -> None:
    """One checkpoint is asked about a video by each in another form."""
    folder = write_video_model("qwen2_vl", tmp_path)
    config = AutoConfig.from_pretrained(folder)
    without = compute_form(Prompter(load_processor(str(folder), config), config))
    again = compute_form(Prompter(load_processor(str(folder), config), config))
    assert without == again != found["qwen2_vl", "limits"]["form"]
    request = JobRequest.model_validate({"inputs": ["s3://b/k"], "questions": ["What?"]})
    versions = [SourceVersion("s3://b/k", "1", None, 1)]
    keys = {
        AnswerCache(ObjectStore(), model="m", revision="1", ttl_s=60, prompt_form=form).make_key(
            request, request.sampling, versions
        )
        for form in (without, again, found["qwen2_vl", "limits"]["form"])
    }
    assert len(keys) == 2


@pytest.mark.parametrize("name", TIMES)
def test_a_prompt_has_the_times_of_its_frames(name: str, found: Found) -> None:
    assert re.findall(TIMES[name], found[name, "a video"]["prompt"]) == EXPECTED[name]


def test_each_video_part_of_transformers_is_compared_or_gives_its_reason(found: Found) -> None:
    """A type that a new version of transformers brings fails here, until it is in one list or the other."""
    processors: dict[str, str] = found["", "processors"]["found"]  # type: ignore[assignment]
    compared = {*PROCESSORS, *VIDEO_PROCESSORS}
    left = {name for name, processor in processors.items() if processor not in compared}
    assert left == NOT_COMPARED
    page = PAGE.read_text()
    assert all(f"`{name}`" in page for name in NOT_COMPARED | ALIKE)
    (reason,) = found["kimi_k25", "a video"]["warnings"]
    assert "Kimi_K25Processor with videos were not compared" in reason


@pytest.mark.parametrize("name", sorted(VIDEOS.keys() - NEWER.keys()))
def test_a_limit_of_tokens_is_kept_or_refused(name: str, found: Found) -> None:
    limited = found[name, "limits"]
    if name in ("internvl", "smolvlm", "perception_lm"):  # all frames have one size
        assert limited["refused"] == "frame_limit_unmet"
    else:
        assert limited["refused"] is None
        assert all(limited[what] for what in ("fewer", "most", "counted", "answered"))
