"""A limit of tokens or pixels is kept by each kind of setting that processors have for it, or the job is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.architectures import ARCHITECTURES
from support.models import picture
from support.other_models import write_model
from support.video_models import write_video_model
from transformers import AutoConfig

from videoqa.errors import FrameLimitUnmet
from videoqa_worker.engine import load_processor
from videoqa_worker.prompt import PictureLimits, Prompter


def load(folder: Path) -> Prompter:
    config: Any = AutoConfig.from_pretrained(folder)
    return Prompter(load_processor(str(folder), config), config)


def test_soft_tokens_are_limited_in_steps(tmp_path: Path) -> None:
    prompter = load(write_video_model("gemma4", tmp_path))
    media = [picture(n, height=120, width=200) for n in range(2)]
    plain = prompter.build(media, "What?")
    limited = [replace(one, limits=PictureLimits(max_tokens=70)) for one in media]
    found = prompter.build(limited, "What?")
    assert 2 * 50 < found.media_tokens <= 2 * 70 < plain.media_tokens
    assert prompter.count_tokens(limited, "What?") == found.length
    with pytest.raises(FrameLimitUnmet):
        prompter.build(
            [replace(one, limits=PictureLimits(max_tokens=40)) for one in media], "What?"
        )


def test_tokens_that_have_another_name_in_the_prompt_count_against_a_limit(tmp_path: Path) -> None:
    """Ovis2 writes a picture as 16 tokens that its processor does not name."""
    prompter = load(write_model(ARCHITECTURES["ovis2"], tmp_path))
    assert prompter.build([picture(1)], "What?").media_tokens == 16
    with pytest.raises(FrameLimitUnmet):
        prompter.build([replace(picture(1), limits=PictureLimits(max_tokens=15))], "What?")
