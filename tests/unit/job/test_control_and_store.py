"""The control of an attempt, and the place where its result is written."""

from __future__ import annotations

import fcntl
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from videoqa import errors
from videoqa.contract import (
    GenerationInForce,
    JobRequest,
    Result,
    Sampling,
    Usage,
)
from videoqa.storage import ObjectStore, file_path
from videoqa_worker.job.context import JobControl
from videoqa_worker.job.result_object import build_url, list_roots, store_result

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def request(**fields: object) -> JobRequest:
    return JobRequest.model_validate({"inputs": ["s3://b/k"], "questions": ["q"], **fields})


def some_result(job_id: str = "job_1", **fields: Any) -> Result:
    return Result(
        job_id=job_id,
        answers=(),
        frames=(),
        sources=(),
        model="demo",
        sampling=Sampling(),
        generation=GenerationInForce(),
        usage=Usage(),
        attempt=1,
        created_at=NOON,
        finished_at=NOON,
        **fields,
    )


# -- control


def test_an_attempt_goes_on_until_its_timeout() -> None:
    clock = Clock()
    control = JobControl("job_1", 1, 5.0, clock)
    clock.now_s += 5.0
    control.check()
    assert not control.is_stopped()
    clock.now_s += 0.001
    assert control.is_stopped()
    with pytest.raises(errors.JobTimeout, match="timeout_s=5"):
        control.check()


def test_the_first_reason_to_stop_stays() -> None:
    clock = Clock()
    control = JobControl("job_1", 1, 5.0, clock)
    control.stop(errors.JobCanceled("canceled on request"))
    control.stop(errors.LeaseLost("too late"))
    clock.now_s += 100
    assert control.is_stopped()
    for _ in range(2):
        with pytest.raises(errors.JobCanceled):
            control.check()


def test_of_reasons_from_many_threads_one_stays() -> None:
    control = JobControl("job_1", 1, 60.0)
    threads = [
        threading.Thread(target=control.stop, args=(errors.WorkerStopping(str(n)),))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = set()
    for _ in range(3):
        with pytest.raises(errors.WorkerStopping) as caught:
            control.check()
        seen.add(str(caught.value))
    assert len(seen) == 1


# -- where results lie


def test_a_result_lies_where_the_template_says() -> None:
    asked = request(custom_id="order 17")
    template = "s3://b/{date}/{custom_id}/{job_id}.json"
    assert build_url(template, "job_1", asked, NOON) == "s3://b/2026-11-23/order%2017/job_1.json"
    assert build_url("s3://b/{job_id}-{custom_id}", "job_1", request(), NOON) == "s3://b/job_1-none"


def test_a_custom_id_cannot_name_another_folder() -> None:
    asked = request(custom_id="../../etc/x?y#z")
    url = build_url("file:///r/{custom_id}/{job_id}", "job_1", asked, NOON)
    assert url == "file:///r/..--..--etc--x=3Fy%23z/job_1"
    assert file_path(url) == Path("/r/..--..--etc--x=3Fy#z/job_1")


@pytest.mark.parametrize(
    ("template", "root"),
    [
        ("file:///r/{date}/{job_id}.json", "/r"),
        ("file:///r/run-{job_id}.json", "/r"),
        ("file:///a%20b/{job_id}", "/a b"),
        ("file:///a{{b}}/{job_id}", "/a{b}"),
    ],
)
def test_results_may_be_written_below_the_fixed_part_of_the_template(
    template: str, root: str
) -> None:
    assert list_roots(template, (Path("/more"),)) == (Path(root), Path("/more"))


def test_a_worker_that_writes_to_s3_may_write_no_files() -> None:
    assert list_roots("s3://b/{job_id}", ()) == ()


@pytest.mark.parametrize(
    "name", ["../outside.json", "..%2Foutside.json", "%2E%2E/outside.json", "a//b", "x?a", "x#a"]
)
def test_a_name_that_could_mean_another_file_is_refused(tmp_path: Path, name: str) -> None:
    objects = ObjectStore(file_roots=(tmp_path,))
    for act in (objects.check, lambda url: objects.write(url, b"{}")):
        with pytest.raises(errors.OutputDenied) as caught:
            act(f"{tmp_path.as_uri()}/results/{name}")
        assert caught.value.param == "output"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["link/outside.json"])
def test_nothing_is_written_outside_the_roots(tmp_path: Path, name: str) -> None:
    root = tmp_path / "results"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    objects = ObjectStore(file_roots=(root,))
    with pytest.raises(errors.OutputDenied, match="VIDEOQA_OUTPUT_ROOTS") as caught:
        objects.write(f"{root.as_uri()}/{name}", b"{}")
    assert caught.value.param == "output"
    assert not (tmp_path / "outside.json").exists()


def test_a_worker_without_roots_writes_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(errors.OutputDenied, match="no folder"):
        ObjectStore(file_roots=()).write((tmp_path / "r.json").as_uri(), b"{}")


# -- storing


def test_a_result_is_written_whole_and_replaced_by_the_next_attempt(tmp_path: Path) -> None:
    url = (tmp_path / "deep" / "r.json").as_uri()
    control = JobControl("job_1", 1, 60.0)
    objects = ObjectStore(file_roots=(tmp_path,))
    store_result(objects, url, some_result(), request(), control)
    again = some_result().model_copy(update={"attempt": 2})
    store_result(objects, url, again, request(), control)
    assert Result.model_validate_json(objects.read(url)) == again
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["r.json"]


def test_an_attempt_that_comes_too_late_leaves_the_object_of_a_later_one(tmp_path: Path) -> None:
    url = (tmp_path / "r.json").as_uri()
    objects = ObjectStore(file_roots=(tmp_path,))
    later = some_result().model_copy(update={"attempt": 2})
    store_result(objects, url, later, request(), JobControl("job_1", 2, 60.0))
    with pytest.raises(errors.LeaseLost, match="too late"):
        store_result(objects, url, some_result(), request(), JobControl("job_1", 1, 60.0))
    assert Result.model_validate_json(objects.read(url)) == later
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        (some_result(), {}),
        (some_result(), {"replaces": "job_2"}),
        (some_result(tenant="a"), {"replaces": "job_1", "tenant": "b"}),
        (some_result(tenant="a"), {"replaces": "job_1"}),
        (some_result(), {"replaces": "job_1", "tenant": "b"}),
        ("[]", {"replaces": "job_1"}),
        ('{"job_id": "job_9", "attempt": "none"}', {}),
        ('{"job_id": "job_9", "attempt": Infinity}', {}),
        ('{"job_id": "job_9", "attempt": 1e400}', {}),
        ('{"job_id": "job_9", "attempt": 1' + "0" * 5000 + "}", {}),
        ('{"job_id": {"job_9": 1}, "attempt": 1}', {}),
        ("[" * 100_000, {}),
        ("", {}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_object_of_another_job_is_never_replaced(
    tmp_path: Path, there: Result | str, asked: dict[str, object]
) -> None:
    text = there if isinstance(there, str) else there.model_dump_json()
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(errors.OutputConflict, match=r"stays as it is; put {job_id}"):
        store_result(
            ObjectStore(),
            (tmp_path / "r.json").as_uri(),
            some_result("job_9"),
            request(**asked),
            JobControl("job_9", 1, 60.0),
        )
    assert (tmp_path / "r.json").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_request_may_name_the_job_of_its_tenant_whose_object_it_replaces(tmp_path: Path) -> None:
    url = (tmp_path / "r.json").as_uri()
    objects, control = ObjectStore(), JobControl("job_9", 1, 60.0)
    objects.write(url, some_result(tenant="a").model_dump_json().encode())
    asked = request(replaces="job_1", tenant="a")
    for attempt in (1, 2):  # the second finds the first one's object, which is its own job's
        result = some_result("job_9", tenant="a").model_copy(update={"attempt": attempt})
        store_result(objects, url, result, asked, control)
    assert Result.model_validate_json(objects.read(url)) == result


def test_a_process_that_stands_still_with_the_lock_stops_no_new_file_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videoqa.storage.files._LOCK_S", 0.2)
    url = (tmp_path / "r.json").as_uri()
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert ObjectStore().write(url, b"{}", keeps=lambda there: False)
    with pytest.raises(errors.OutputUnavailable, match="has locked"):
        ObjectStore().write(url, b"[]", keeps=lambda there: False)
    os.close(folder)
    assert ObjectStore().write(url, b"[]", keeps=lambda there: False)
    assert (tmp_path / "r.json").read_text() == "[]"


def test_a_folder_in_the_way_is_denied_and_leaves_no_rubbish(tmp_path: Path) -> None:
    (tmp_path / "r.json").mkdir()
    with pytest.raises(errors.OutputDenied):
        ObjectStore().write((tmp_path / "r.json").as_uri(), b"{}")
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.OutputDenied):
        ObjectStore().write((tmp_path / "file" / "r.json").as_uri(), b"{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "r.json"]


class Away(ObjectStore):
    """Storage that does not answer the first `times` calls."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.calls = 0

    def write(self, url: str, data: bytes, **more: Any) -> bool:
        self.calls += 1
        if self.calls <= self.times:
            raise errors.OutputUnavailable("storage is away")
        return super().write(url, data, **more)


def test_storage_that_is_away_for_a_moment_costs_no_answer(tmp_path: Path) -> None:
    url = (tmp_path / "r.json").as_uri()
    store_result(objects := Away(1), url, some_result(), request(), JobControl("job_1", 1, 60.0))
    assert objects.calls == 2
    assert (tmp_path / "r.json").exists()


def test_storage_that_stays_away_is_reported_after_three_tries(tmp_path: Path) -> None:
    objects = Away(9)
    with pytest.raises(errors.OutputUnavailable):
        store_result(
            objects,
            (tmp_path / "r").as_uri(),
            some_result(),
            request(),
            JobControl("job_1", 1, 60.0),
        )
    assert objects.calls == 3


def test_a_canceled_job_stores_nothing(tmp_path: Path) -> None:
    control = JobControl("job_1", 1, 60.0)
    control.stop(errors.JobCanceled("canceled on request"))
    url = (tmp_path / "r.json").as_uri()
    with pytest.raises(errors.JobCanceled):
        store_result(ObjectStore(), url, some_result(), request(), control)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("custom_id", ["../up", "a/b", "..", ".", "a b%2F", "é?#"])
def test_a_custom_id_is_one_file_name_whatever_it_holds(tmp_path: Path, custom_id: str) -> None:
    asked = request(custom_id=custom_id)
    template = tmp_path.as_uri() + "/mine/{custom_id}"
    path = file_path(build_url(template, "job_1", asked, NOON))
    assert path.resolve().parent == (tmp_path / "mine").resolve()
