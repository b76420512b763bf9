"""Settings from the environment: defaults, names in errors, lists of folders, the output template."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from pydantic import ValidationError

from videoqa.errors import ConfigurationError
from videoqa.gateway import GatewaySettings
from videoqa.settings import Settings, Variable, unknown_variables
from videoqa_worker.service.announcement import list_queues
from videoqa_worker.settings import DEMO_MODEL_PATH, WorkerSettings

DOCS = Path(__file__).parents[3] / "docs"


def read(**environ: str) -> WorkerSettings:
    return WorkerSettings.from_environment({f"VIDEOQA_{k.upper()}": v for k, v in environ.items()})


def refused(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(**environ)
    (name,) = environ
    assert caught.value.param == name
    assert f"VIDEOQA_{name.upper()}=" in str(caught.value)
    return str(caught.value)


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()
    assert read() == WorkerSettings()
    assert Settings().redis_url == "redis://127.0.0.1:6379/0"
    assert Settings().broker == Settings().redis_url


def test_an_empty_variable_is_an_unset_one() -> None:
    assert read(broker_url="", slots="", file_roots="", redis_url="") == WorkerSettings()


def test_variables_of_other_parts_are_left_alone() -> None:
    assert Settings.from_environment({"VIDEOQA_MODEL": "demo", "PATH": "/bin"}) == Settings()


def test_an_override_wins_over_its_variable_and_none_does_not() -> None:
    environ = {"VIDEOQA_PREFIX": "a", "VIDEOQA_REDIS_URL": "redis://h/1"}
    found = Settings.from_environment(environ, prefix="b", redis_url=None)
    assert (found.prefix, found.redis_url) == ("b", "redis://h/1")


def test_an_override_that_is_no_setting_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="got max_bytes"):
        WorkerSettings.from_environment({}, max_bytes=1)


def test_every_variable_is_one_field_and_has_its_effect() -> None:
    names = [row.name for row in WorkerSettings.table()]
    assert len(names) == len(set(names))
    found = read(source_deadline_s="9", max_source_bytes="8", server_silence_s="7", max_batch="6")
    assert (found.sources.deadline_s, found.sources.max_bytes) == (9, 8)
    assert (found.server.silence_s, found.engine.max_batch) == (7, 6)


def test_a_variable_that_no_setting_reads_is_reported_with_the_nearest_name() -> None:
    environ = {
        "VIDEOQA_MODEL": "demo", "VIDEOQA_HOME": "/h", "VIDEOQA_MAX_BACH": "4", "VIDEOQA_X": "1",
        "PATH": "/bin",
    }  # fmt: skip
    assert unknown_variables(environ, WorkerSettings.table()) == [
        "VIDEOQA_MAX_BACH is not a setting; did you mean VIDEOQA_MAX_BATCH?",
        "VIDEOQA_X is not a setting; unset it, or look it up in the reference",
    ]
    environ = {"VIDEOQA_MODEL": "demo", "VIDEOQA_REDIS_ULR": "redis://h/0"}
    assert unknown_variables(environ, Settings.table(), similar_only=True) == [
        "VIDEOQA_REDIS_ULR is not a setting; did you mean VIDEOQA_REDIS_URL?"
    ]


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        WorkerSettings().prefix = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("socket_timeout_s", "2"), ("socket_timeout_s", "soon"), ("connect_timeout_s", "0"),
        ("connect_timeout_s", "inf"),
        ("prefix", "a b"), ("prefix", "p" * 65), ("start_by_default_s", "-1"),
        ("inline_result_bytes", "-1"), ("dtype", "int8"), ("quantization", "2bit"),
        ("chat_template", "none"), ("max_batch", "0"), ("max_batch", "257"), ("slots", "0"),
        ("lease_s", "0"), ("heartbeat_s", "0"), ("heartbeat_s", "11"), ("reap_every_s", "0"), ("bell_grace_s", "0"),
        ("drain_grace_s", "-1"), ("private_addresses", "maybe"), ("max_source_bytes", "4GB"),
        ("max_pixels", "0"), ("cpu_threads", "0"), ("log_level", "LOUD"), ("range_attempts", "0"),
        ("source_read_timeout_s", "0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_the_variables_name(name: str, text: str) -> None:
    assert f"VIDEOQA_{name.upper()}={text!r}: " in refused(**{name: text})


def test_a_lease_that_is_too_short_for_its_heartbeat_is_refused() -> None:
    assert read(lease_s="3").heartbeat_s == 1
    with pytest.raises(ConfigurationError, match=r"HEARTBEAT_S=1\.0: .*lease_s=2"):
        read(lease_s="2")


def test_the_environment_itself_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOQA_PREFIX", "mine")
    assert Settings.from_environment().prefix == "mine"


def test_folders_are_separated_as_in_path() -> None:
    found = read(file_roots="/data:/mnt/videos", output_roots="/results")
    assert found.sources.file_roots == (Path("/data"), Path("/mnt/videos"))
    assert found.output_roots == (Path("/results"),)


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("1", True), ("off", False)])
def test_switches_take_the_usual_words(text: str, meant: bool) -> None:
    assert read(private_addresses=text).sources.private_addresses is meant


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("/results/{job_id}", "expected s3://bucket/... or file:///folder/..."),
        ("https://h/{job_id}", "expected s3://bucket/..."),
        ("s3://b/{date}.json", "expected {job_id} in it"),
        ("s3://b/all.json?{job_id}", "without query and fragment"),
        ("s3://b/{custom_id}", "expected {job_id} in it"),
        ("s3://b/{job_id}/{tenant}", "got the fields ['tenant'], expected some of"),
        ("s3://b/{job_id}/{}", "got the fields [''], expected some of"),
        ("s3://b/{job_id", "expected a template"),
    ],
)
def test_an_output_template_that_could_not_be_filled_is_refused(template: str, says: str) -> None:
    assert says in refused(output=template)


@pytest.mark.parametrize("name", ["server_url", "s3_endpoint_url"])
@pytest.mark.parametrize(
    "url", ["foo", "127.0.0.1:8000/v1", "http:/h/v1", "http://", "http://h:99999", "http://[h"]
)
def test_what_is_no_url_is_refused_at_once(name: str, url: str) -> None:
    assert "expected a URL, such as http://HOST:PORT" in refused(**{name: url})
    assert "http://h:8000/v1" in (
        read(**{name: "http://h:8000/v1"}).server.url,
        read(**{name: "http://h:8000/v1"}).s3_endpoint_url,
    )


def test_a_wrong_url_is_shown_without_its_password() -> None:
    assert "'htp://h/v1'" in refused(server_url="htp://me:secret@h/v1")
    for url in ("me:secret@h/v1", "http:/me:secret@h/v1", "me:secret//@h/v1"):
        assert "='h/v1': expected a URL" in refused(server_url=url)


def test_results_go_below_the_home_folder_unless_told_otherwise() -> None:
    assert WorkerSettings().output.startswith("file:///")
    assert WorkerSettings().output.endswith("/.local/share/videoqa/results/{date}/{job_id}.json")
    assert read(output="s3://b/{custom_id}/{job_id}").output == "s3://b/{custom_id}/{job_id}"


def test_a_worker_serves_its_model_and_the_default_interactive_jobs_first() -> None:
    assert list_queues(read(model="org/m", prefix="p")) == (
        "p.org%2Fm.interactive", "p.default.interactive", "p.org%2Fm.bulk", "p.default.bulk",
    )  # fmt: skip
    assert list_queues(read(model="org/m", serve_default="false")) == (
        "videoqa.org%2Fm.interactive", "videoqa.org%2Fm.bulk",
    )  # fmt: skip


def test_slots_are_twice_the_batch_unless_set() -> None:
    assert (read(max_batch="4").job_slots, read(slots="3").job_slots) == (8, 3)


def test_the_bundled_model_is_named_demo() -> None:
    assert read(model="demo").engine.checkpoint == str(DEMO_MODEL_PATH)
    assert read(model="org/m").engine.checkpoint == "org/m"


def test_the_references_tables_are_those_of_the_definitions() -> None:
    page = runpy.run_path(str(DOCS / "generate.py"))
    texts = [path.read_text() for path in page["PAGES"]]
    assert [text.count("<!-- end -->") for text in texts] == [3, 4, 2, 5, 2]
    assert list(map(page["render"], texts)) == texts, "run: python docs/generate.py"
    assert page["OPENAPI"].read_text() == page["render_openapi"](), "run: python docs/generate.py"
    assert page["BOARD"].read_text() == page["render_board"](), "run: python docs/generate.py"


@pytest.mark.parametrize("row", WorkerSettings.table(), ids=lambda row: str(row[0]))
def test_every_setting_has_a_reason(row: Variable) -> None:
    assert row.reason


def test_the_brokers_url_is_spelled_as_celery_needs_it() -> None:
    def broker(url: str) -> str:
        return Settings(redis_url=url).broker

    assert broker("redis://h:1/0") == "redis://h:1/0"
    # kombu would not look at the certificate, and send the password to anybody.
    assert broker("rediss://:pw@h:1/0") == "rediss://:pw@h:1/0?ssl_cert_reqs=required"
    assert (
        broker("rediss://a/0;redis://b?db=2") == "rediss://a/0?ssl_cert_reqs=required;redis://b/2"
    )
    assert broker("sentinel://a:1;sentinel://b:1") == "sentinel://a:1;sentinel://b:1"
    assert broker("unix:///run/r.sock?db=2") == "redis+socket:///run/r.sock?virtual_host=2"


def test_the_variables_of_the_gateway_are_checked_by_it_alone() -> None:
    known = (*Settings.table(), *WorkerSettings.table())
    environ = {row.name: "1" for row in GatewaySettings.table()} | {"VIDEOQA_GATEWAY_PROT": "1"}
    assert unknown_variables(environ, known) == []
    (mistake,) = unknown_variables(environ, GatewaySettings.table())
    assert mistake.endswith("did you mean VIDEOQA_GATEWAY_PORT?")
