"""Captions for a table of videos with Daft: Parquet in, Parquet out, one model for each GPU.

    pip install ./producer ./worker daft
    python examples/daft_captions.py 'videos/*.parquet' captions

The table has the columns `id` and `video` (an s3:// or https:// URL, or an absolute path). A video that cannot be
answered gets the code of its error. Rows that are in the output already are left out, so the command can be repeated.
"""

import argparse
from pathlib import Path
from typing import Any

import daft
from daft import DataType, col

from videoqa import Failure
from videoqa_worker import VideoQA

FOUND = DataType.struct({"caption": DataType.string(), "error": DataType.string()})


class Captioner:
    def __init__(self, qa: VideoQA) -> None:
        self.qa = qa  # it came as its settings: the model is loaded with the first batch

    @daft.method.batch(return_dtype=FOUND)
    def caption(self, videos: daft.Series) -> list[dict[str, str | None]]:
        found = self.qa.ask_many(videos.to_pylist(), "What happens?", on_error="return")
        return [
            {"caption": None, "error": one.code}
            if isinstance(one, Failure)
            else {"caption": one.answers[0].text, "error": None}
            for one in found
        ]


def caption(table: str, output: str, qa: VideoQA, *, gpus: int = 1) -> Any:
    videos = daft.read_parquet(table)
    if any(Path(output).glob("*.parquet")):
        videos = videos.join(
            daft.read_parquet(f"{output}/*.parquet").select("id"), on="id", how="anti"
        )
    captioner = daft.cls(Captioner, gpus=gpus, max_concurrency=1)(qa)
    found = videos.with_column("found", captioner.caption(col("video")))
    rows = found.select("id", "video", col("found")["caption"], col("found")["error"])
    return rows.write_parquet(output, write_mode="append")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("output")
    parser.add_argument("--model", default="llava-hf/llava-interleave-qwen-0.5b-hf")
    parser.add_argument("--gpus", type=int, default=1)
    given = parser.parse_args()
    print(caption(given.table, given.output, VideoQA(given.model), gpus=given.gpus))
