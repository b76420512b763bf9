"""Code blocks of docs/guide/library.md, run with the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile

import pytest
from support.pages import LIBRARY_PAGE, Block, blocks_of

import videoqa_worker
from videoqa_worker import VideoQA

CLIPS = Path(videoqa_worker.__file__).parent / "demo" / "clips"


@pytest.fixture(scope="module")
def qa() -> Iterator[VideoQA]:
    with VideoQA("demo", decoders=1) as qa:
        yield qa


@pytest.mark.parametrize(
    "block", [one for one in blocks_of(LIBRARY_PAGE) if one.language == "python"], ids=str
)
def test_a_block_of_the_library_page_runs(
    block: Block, qa: VideoQA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for shown, clip in {"clip.mp4": "circle.mp4", "lecture.mp4": "square.mp4"}.items():
        copyfile(CLIPS / clip, tmp_path / shown)
    (tmp_path / "videos").mkdir()
    copyfile(CLIPS / "triangle.mp4", tmp_path / "videos" / "a.mp4")
    code = block.code.replace("llava-hf/llava-interleave-qwen-0.5b-hf", "demo")
    exec(compile(code, str(block), "exec"), {"qa": qa})
