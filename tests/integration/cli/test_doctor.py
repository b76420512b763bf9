"""`videoqa doctor`: what is broken is found before a job meets it, and the next step is said."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import torch
from support.worker import begin

from videoqa import Client
from videoqa.cli import doctor as of_producer
from videoqa.cli.output import Check, print_checks
from videoqa.contract import Failure, WorkerInfo
from videoqa.jobs import Ledger, connect, queue_name
from videoqa.settings import Settings
from videoqa_worker.__main__ import _check_redis
from videoqa_worker.cli import doctor
from videoqa_worker.decoding.messages import Confinement
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
    (check,) = doctor._check_video(worker(decoder_memory_bytes=100 << 20))
    assert not check.ok
    assert "VIDEOQA_DECODER_MEMORY_BYTES" in check.next_step


def test_a_spool_without_room_or_rights_is_not_well(tmp_path: Path) -> None:
    assert doctor._check_spool(tmp_path, 1).ok
    assert not doctor._check_spool(tmp_path, 1 << 60).ok
    in_the_way = tmp_path / "file"
    in_the_way.write_bytes(b"")
    assert not doctor._check_spool(in_the_way / "below", 1).ok


def announced(**fields: Any) -> WorkerInfo:
    now = datetime.now(UTC)
    known = {
        "id": "w:1",
        "model": "org/m",
        "queues": ("q",),
        "slots": 1,
        "running": 0,
        "ready": True,
    }
    return WorkerInfo.model_validate(known | {"started_at": now, "seen_at": now} | fields)


def test_the_folders_of_workers_that_run_here_are_checked_not_those_of_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_check_device", "_check_model"):
        monkeypatch.setattr(doctor, name, lambda settings: Check("skipped", ok=True, found=""))
    monkeypatch.setattr(doctor, "_check_video", lambda settings: ())
    monkeypatch.setenv("VIDEOQA_OUTPUT", f"file://{tmp_path}/shell/{{job_id}}.json")
    monkeypatch.setenv("VIDEOQA_SPOOL_DIR", str(tmp_path / "shell"))

    def find(*workers: WorkerInfo) -> dict[str, str]:
        return {check.name: check.found for check in doctor.checks(workers)}

    output = f"file://{tmp_path}/theirs/{{job_id}}.json"
    place = {"spool": str(tmp_path / "theirs"), "max_source_bytes": 1, "output": output}
    for host, folder in ((socket.gethostname(), "theirs"), ("elsewhere", "shell")):
        found = find(announced(host=host, **place))
        assert found["output"] == f"can write to file://{tmp_path}/{folder}"
        assert found["spool"].startswith(f"{tmp_path}/{folder}, ")


@pytest.mark.parametrize("rest", ["", "-{date}", "{", "{job_id.x}"])
def test_an_announcement_cannot_have_a_file_of_the_operator_overwritten(
    rest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_check_device", "_check_model"):
        monkeypatch.setattr(doctor, name, lambda settings: Check("skipped", ok=True, found=""))
    monkeypatch.setattr(doctor, "_check_video", lambda settings: ())
    precious = [tmp_path / name for name in ("precious", "precious-doctor")]
    for path in precious:
        path.write_text("precious")
    forged = announced(host=socket.gethostname(), output=f"file://{tmp_path}/precious{rest}")
    (check,) = [check for check in doctor.checks([forged]) if check.name == "output"]
    assert not check.ok
    assert "is not an output that a worker accepts" in check.found
    assert [path.read_text() for path in precious] == ["precious", "precious"]


def test_storage_that_does_not_answer_does_not_hold_the_others_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "OUTPUT_LIMIT_S", 0.3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        output = "s3://bucket/{job_id}.json"
        check = doctor._start(partial(doctor._check_output, output, url), output)()
    assert not check.ok
    assert check.found == "s3://bucket does not answer within 0.3 s"


def test_each_check_is_printed_when_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    def slow() -> Iterator[Check]:
        yield Check("first", ok=True, found="well")
        assert capsys.readouterr().out == "ok    first            well\n"
        yield Check("second", ok=False, found="broken", next_step="mend it")
        assert capsys.readouterr().out.splitlines()[1].split() == ["->", "mend", "it"]

    assert not print_checks(slow(), as_json=False)


def test_a_redis_that_is_full_a_replica_or_a_cluster_is_not_well() -> None:
    well = {"role": "master", "connected_slaves": 0, "used_memory": 1 << 20, "maxmemory": 1 << 30}
    for info, name, says in [
        ({"maxmemory": 1 << 20}, "memory", "1.0 MiB of 1.0 MiB"),
        ({"maxmemory": 0, "total_system_memory": 1 << 20}, "memory", "no limit (maxmemory 0)"),
        ({"cluster_enabled": 1}, "replication", "cluster mode"),
        ({"role": "slave", "master_host": "h", "master_port": 6379}, "replication", "of h:6379"),
        (
            {"connected_slaves": 2, "slave0": {"state": "online"}, "slave1": {"state": "sync"}},
            "replication", "2 replicas, 1 of them not in step",
        ),
    ]:  # fmt: skip
        checks = (of_producer._check_memory, lambda info: of_producer._check_replication(info, 0))
        assert all(check(well).ok for check in checks)
        (found,) = [check for each in checks if not (check := each(well | info)).ok]
        assert (found.name, says in found.found) == (name, True)


def test_a_check_that_passed_has_no_next_step_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [Check(name, ok, "x", next_step="do it") for name, ok in (("a", True), ("b", False))]
    assert not print_checks(iter(checks), as_json=True)
    found = json.loads(capsys.readouterr().out)["checks"]
    assert [check["next_step"] for check in found] == ["", "do it"]


def test_jobs_that_wait_for_no_worker_and_failures_of_the_fleet_are_not_well(
    client: Client, ledger: Ledger
) -> None:
    prefix = ledger.keys.prefix
    assert of_producer._check_backlog(ledger.queues(), [], prefix).found == "no job waits"
    assert of_producer._check_failures(ledger.count_failures(within_s=60)).found.endswith("none")
    client.submit(inputs=["s3://b/k"], questions=["What?"], model="org/m")
    client.submit_many([{"inputs": ["s3://b/k"], "questions": ["What?"]}] * 3)
    check = of_producer._check_backlog(ledger.queues(), [], prefix)
    assert not check.ok
    assert check.found == (
        "3 interactive for any model, 1 interactive for org/m; the oldest for 0s"
    )
    assert check.next_step.startswith("start a worker with VIDEOQA_MODEL=org/m")
    served = tuple(queue_name(prefix, model, "interactive") for model in (None, "org/m"))
    for queues, next_step in (
        (served, "wait until a worker has loaded the model"),
        (served[1:], "start a worker: no worker serves them"),
    ):
        loading = WorkerInfo(
            id="w", model="org/m", queues=queues, slots=1, running=0, ready=False,
            started_at=datetime.now(UTC), seen_at=datetime.now(UTC),
        )  # fmt: skip
        check = of_producer._check_backlog(ledger.queues(), [loading], prefix)
        assert (check.ok, check.next_step) == (False, next_step)
    client.pause()
    client.pause("org/m")
    assert of_producer._check_backlog(ledger.queues(), [], prefix).ok
    client.resume()
    for code, ok in (("source_not_found", True), ("model_error", False), ("model_error", False)):
        claim = begin(ledger, code)
        failure = Failure(code=code, message="it failed", attempt=1)
        ledger.fail(claim.job_id, code, failure, delay_s=0)
        check = of_producer._check_failures(ledger.count_failures(within_s=60))
        assert check.ok is ok
    assert check.found == "in the last hour: 2 model_error, 1 source_not_found"
    assert check.next_step == "videoqa dead list --code model_error"
    assert ledger.count_failures(within_s=-10) == {}


def test_a_worker_says_at_its_start_if_redis_may_evict(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    started = WorkerSettings.from_environment({}, redis_url=settings.redis_url)
    _check_redis(started)
    assert caplog.messages == []
    redis_client.config_set("maxmemory-policy", "volatile-lru")
    try:
        _check_redis(started)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory-policy volatile-lru, expected noeviction" in caplog.messages[0]


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


@pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")
def test_the_layers_that_confine_decoding_are_shown() -> None:
    video, confinement = doctor._check_video(worker())
    assert video.ok, video
    assert confinement.ok, confinement
    assert "no capabilities" in confinement.found
    for layer in ("Landlock", "seccomp", "user"):
        assert layer in confinement.found


def test_a_kernel_that_takes_no_path_away_is_no_place_for_decoders() -> None:
    check = doctor._describe_confinement(
        Confinement(held=("no capabilities",), missing=("Landlock: off", "seccomp: refused"))
    )
    assert check.ok is (sys.platform != "linux")
    assert "no capabilities; not by Landlock: off; not by seccomp: refused" in check.found
