"""The example for Ray Data, with the real library: `make test-examples` installs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import videoqa_worker
from videoqa_worker import VideoQA
from videoqa_worker.embedded import S3Server

ray = pytest.importorskip("ray", reason="`make test-examples` installs Ray")
ROOT = Path(__file__).parents[2]
CLIPS = Path(videoqa_worker.__file__).parent / "demo" / "clips"


@pytest.fixture(scope="module")
def captions(s3_server: S3Server) -> Iterator[Any]:
    """The example as a module that Ray's processes get by value, on a Ray of this machine; clips lie in a bucket."""
    store = s3_server.client()
    store.create_bucket(Bucket="shapes")
    for name in ("circle.mp4", "square.mp4", "triangle.mp4"):
        store.upload_file(str(CLIPS / name), "shapes", name)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in s3_server.environment().items():
            patch.setenv(variable, value)
        patch.syspath_prepend(str(ROOT / "examples"))
        import ray_captions

        ray.cloudpickle.register_pickle_by_value(ray_captions)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
        yield ray_captions
        ray.shutdown()


def test_a_table_becomes_captions_and_a_second_run_takes_what_a_crash_left(
    captions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, video in enumerate(
        f"s3://shapes/{name}"
        for name in ("circle.mp4", "missing.mp4", "square.mp4", "triangle.mp4")
    ):
        (tmp_path / "videos").mkdir(exist_ok=True)
        row = pa.table({"id": [n], "video": [video]})
        pq.write_table(row, tmp_path / "videos" / f"{n}.parquet")
    asked, is_broken = tmp_path / "asked", tmp_path / "broken"
    asked.write_text("")
    is_broken.touch()
    plain = captions.Captioner

    class Breaking(plain):  # type: ignore[misc,valid-type]
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            if 3 in batch["id"] and is_broken.exists():
                raise RuntimeError("the machine is gone")
            with asked.open("a") as file:
                file.write("".join(f"{number}\n" for number in batch["id"]))
            return plain.__call__(self, batch)  # type: ignore[no-any-return]

    monkeypatch.setattr(captions, "Captioner", Breaking)
    places = [str(tmp_path / name) for name in ("videos", "captions", "checkpoint")]
    options: dict[str, Any] = {"gpus": 0, "batch": 1}
    qa = VideoQA.from_environment("demo", decoders=1, max_batch=1)
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "max_errored_blocks", 1)  # else the others may be lost with it
    captions.caption(*places, qa, **options)
    assert sorted(row["id"] for row in _read(tmp_path / "captions")) == [0, 1, 2]
    is_broken.unlink()
    asked.write_text("")
    captions.caption(*places, qa, **options)
    rows = _read(tmp_path / "captions")
    assert sorted(row["id"] for row in rows) == [0, 1, 2, 3]
    assert {row["id"]: (row["caption"], row["error"]) for row in rows} == {
        0: ("a red circle moves right", None),
        1: (None, "source_not_found"),
        2: ("a blue square moves up", None),
        3: ("a green triangle moves left", None),
    }
    assert asked.read_text().split() == ["3"]


def _read(folder: Path) -> list[dict[str, Any]]:
    if not folder.exists():
        return []
    return [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
