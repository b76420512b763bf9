"""`videoqa doctor`: what is broken is found before a job meets it, and the next step is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from videoqa.cli import doctor as of_producer
from videoqa.cli.output import Check
from videoqa.jobs import connect
from videoqa.settings import Settings
from videoqa_worker.cli import doctor
from videoqa_worker.settings import WorkerSettings

Copied = Callable[[str], Path]


@pytest.fixture
def copied(checkpoint: Callable[[str], Path], tmp_path: Path) -> Copied:
    """A checkpoint that may be broken."""

    def copied(family: str) -> Path:
        return Path(shutil.copytree(checkpoint(family), tmp_path / family))

    return copied


def worker(**fields: Any) -> WorkerSettings:
    return WorkerSettings.from_environment({}, **({"model": "demo"} | fields))


def model(folder: Path) -> Check:
    return doctor._check_model(worker(model=str(folder)))


@pytest.mark.parametrize("family", ["interleave", "next_video", "video_llava"])
def test_a_checkpoint_that_would_load_is_well(family: str, copied: Copied) -> None:
    check = model(copied(family))
    assert check.ok, check
    assert "on this disk" in check.found
    assert "M parameters" in check.found


def test_weights_that_are_cut_off_are_found_without_reading_them(copied: Copied) -> None:
    folder = copied("interleave")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    check = model(folder)
    assert not check.ok
    assert "cut off or damaged" in check.found


def test_a_part_of_the_weights_that_is_missing_is_named(copied: Copied) -> None:
    folder = copied("interleave")
    whole = folder / "model.safetensors"
    whole.rename(folder / "model-00001-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    check = model(folder)
    assert not check.ok
    assert "has no model-00002-of-00002.safetensors" in check.found


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("tokenizer.json", "tokenizer"),
        ("config.json", "config.json"),
        ("preprocessor_config.json", "preprocessor_config.json"),
    ],
)
def test_a_checkpoint_that_lacks_a_small_file_is_not_well(
    broken: str, says: str, copied: Copied
) -> None:
    folder = copied("interleave")
    for path in [folder / broken, *folder.glob("processor_config.json")]:
        path.unlink(missing_ok=True)
    check = model(folder)
    assert not check.ok
    assert says in check.found


def test_a_model_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    check = model(tmp_path)
    assert not check.ok
    assert "expected one that answers text about images" in check.found


def test_a_gpu_that_torch_cannot_use_is_no_silent_fall_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "_NVIDIA", tmp_path)
    check = doctor._check_device(worker())
    assert (check.ok, "cannot use" in check.found) == (False, True)
    assert doctor._check_device(worker(device="cpu")).ok
    monkeypatch.setattr(doctor, "_NVIDIA", tmp_path / "none")
    assert doctor._check_device(worker()).ok
    assert not doctor._check_device(worker(device="cuda:0")).ok


def test_a_decoder_that_cannot_run_is_found_by_decoding() -> None:
    assert doctor._check_video(worker()).ok
    check = doctor._check_video(worker(decoder_memory_bytes=100 << 20))
    assert not check.ok
    assert "VIDEOQA_DECODER_MEMORY_BYTES" in check.next_step


def test_a_spool_without_room_or_rights_is_not_well(tmp_path: Path) -> None:
    assert doctor._check_spool(worker(spool_dir=tmp_path)).ok
    assert not doctor._check_spool(worker(spool_dir=tmp_path, max_source_bytes=1 << 60)).ok
    in_the_way = tmp_path / "file"
    in_the_way.write_bytes(b"")
    assert not doctor._check_spool(worker(spool_dir=in_the_way / "below")).ok


def test_an_old_redis_is_not_well(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(settings) as client:
        info = client.info()
        for version, ok in (("6.0.16", False), ("6.2.0", True), ("8.4.0", True)):
            monkeypatch.setattr(
                client, "info", lambda version=version: info | {"redis_version": version}
            )
            (check,) = [c for c in of_producer._check_redis(settings, client) if c.name == "redis"]
            assert check.ok is ok, version


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one() -> None:
    check = of_producer.check_variables({"VIDEOQA_MAX_BACH": "4"}, WorkerSettings)
    assert not check.ok
    assert "did you mean VIDEOQA_MAX_BATCH?" in check.found
    assert of_producer.check_variables({"VIDEOQA_MAX_BATCH": "4"}, WorkerSettings).ok


def test_the_client_alone_cannot_tell_a_workers_variable_from_a_mistake() -> None:
    def check(name: str) -> Check:
        return of_producer.check_variables({name: "1"}, Settings, similar_only=True)

    assert check("VIDEOQA_MAX_BATCH").ok
    assert not check("VIDEOQA_PREFFIX").ok
