"""Captions for a table of videos with Ray Data: Parquet in, Parquet out, one model for each GPU.

    pip install ./producer ./worker 'ray[data]'
    python examples/ray_captions.py videos.parquet captions checkpoint

The table has the columns `id` and `video` (an s3:// or https:// URL, or an absolute path). A video that cannot be
answered gets the code of its error. After a crash the same command takes only the rows that are not written yet.
"""

import argparse
from typing import Any

import ray.data
from ray.data.checkpoint import CheckpointConfig

from videoqa import Failure
from videoqa_worker import VideoQA


class Captioner:
    def __init__(self, qa: VideoQA) -> None:
        self.qa = qa  # it came as its settings: this actor loads the model with the first batch

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = list(self.qa.ask_many(batch["video"], "What happens?", on_error="return"))
        batch["error"] = [one.code if isinstance(one, Failure) else None for one in found]
        batch["caption"] = [
            None if isinstance(one, Failure) else one.answers[0].text for one in found
        ]
        return batch


def caption(
    table: str,
    output: str,
    checkpoint: str,
    qa: VideoQA,
    *,
    actors: int = 1,
    gpus: float = 1,
    batch: int = 64,
) -> None:
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(
        "id", checkpoint, delete_checkpoint_on_success=False
    )
    videos = ray.data.read_parquet(table)
    videos = videos.repartition(
        target_num_rows_per_block=batch
    )  # a crash costs no more rows than this
    captions = videos.map_batches(
        Captioner,
        fn_constructor_args=[qa],
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_gpus=gpus,
        batch_size=batch,
    )
    captions.write_parquet(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("output")
    parser.add_argument("checkpoint")
    parser.add_argument("--model", default="llava-hf/llava-interleave-qwen-0.5b-hf")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=1)
    given = parser.parse_args()
    qa = VideoQA(given.model)
    caption(given.table, given.output, given.checkpoint, qa, actors=given.actors, gpus=given.gpus)
