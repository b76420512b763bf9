"""The contract: old JSON still parses, unknown fields and wrong values are refused with a clear message.

`golden/` is written once a release and then only added to: an edit there breaks a user.
Bounds stand here as literals, so that changing one in the code is noticed.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from videoqa import contract, errors
from videoqa.contract import Image, JobRequest, Question, Video, parse_request, redact_url
from videoqa.gateway.reference.error_codes import GATEWAY_CODES

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
CROSSING = ("JobRequest", "Job", "Result", "Failure", "Event", "WorkerInfo")


def model_of(path: Path) -> type[BaseModel]:
    found: type[BaseModel] = getattr(contract, path.name.partition(".")[0])
    return found


def make_request(**fields: Any) -> dict[str, Any]:
    """Makes a valid request with these fields changed."""
    return {"inputs": ["s3://b/clip.mp4"], "questions": ["What is it?"], **fields}


def refuse(**fields: Any) -> errors.VideoQAError:
    with pytest.raises(errors.RequestError) as caught:
        parse_request(make_request(**fields))
    return caught.value


# -- golden files


def test_every_model_that_crosses_a_process_has_golden_files() -> None:
    assert {path.name.partition(".")[0] for path in GOLDEN} == set(CROSSING)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_json_still_parses_and_comes_back_the_same(path: Path) -> None:
    model = model_of(path)
    parsed = model.model_validate_json(path.read_text())
    assert model.model_validate_json(parsed.model_dump_json()) == parsed
    assert model.model_validate_json(parsed.model_dump_json(exclude_defaults=True)) == parsed
    if not path.stem.startswith("JobRequest."):  # a request is normalised
        assert parsed.model_dump(mode="json", exclude_unset=True) == json.loads(path.read_text())


def list_objects(data: Any, where: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Lists each JSON object in `data`, but for free-form metadata, with its path."""
    if isinstance(data, list):
        return [
            found for n, item in enumerate(data) for found in list_objects(item, f"{where}.{n}")
        ]
    if not isinstance(data, dict):
        return []
    nested = [
        found
        for name, item in data.items()
        if name not in ("metadata", "from_checkpoint")
        for found in list_objects(item, f"{where}.{name}")
    ]
    return [(where, data), *nested]


@pytest.mark.parametrize(
    "path",
    [path for path in GOLDEN if path.stem.partition(".")[2] in ("full", "failed", "state")],
    ids=lambda path: path.stem,
)
def test_an_unknown_field_is_refused_at_every_depth(path: Path) -> None:
    places = [where for where, _ in list_objects(json.loads(path.read_text()))]
    for where in places:
        data = json.loads(path.read_text())
        dict(list_objects(data))[where]["surprise"] = 1
        with pytest.raises(ValidationError, match="surprise"):
            model_of(path).model_validate(data)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_what_crosses_a_process_is_frozen(path: Path) -> None:
    parsed = model_of(path).model_validate_json(path.read_text())
    for name in type(parsed).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(parsed, name, getattr(parsed, name))


def test_times_without_a_zone_are_refused() -> None:
    error = refuse(start_by="2026-11-23T12:00:00")
    assert (error.param, "with its zone" in str(error)) == ("start_by", True)


# -- limits

LONG = 10_000

ACCEPTED: list[dict[str, Any]] = [
    {"inputs": ["s3://b/k"] * 32},
    {"inputs": ["https://b/" + "k" * (8192 - 10), "s3://b/" + "k" * 1024]},
    {"inputs": [{"url": "s3://b/k", "start": 0, "end": 1e7}]},
    {"inputs": [{"url": "s3://b/k", "start": 1e7}]},
    {"questions": ["q"] * 64},
    {"questions": [{"id": "i" * 128, "text": "t" * 32_768}]},
    {"sampling": {"frames": 1}},
    {"sampling": {"frames": 256}},
    {"sampling": {"method": "fps", "fps": 240, "frames": 256, "budget": 1024}},
    {"sampling": {"method": "times", "times": [0, 1e7]}},
    {"sampling": {"method": "keyframe", "tolerance_s": 0, "budget": 1}},
    {"generation": {"max_new_tokens": 1, "temperature": 0, "top_p": 1, "seed": 0}},
    {"generation": {"max_new_tokens": 4096, "temperature": 2, "seed": 2**63 - 1}},
    {"generation": {"stop": ["s" * 256] * 8}},
    {"generation": {"top_k": 2**31 - 1, "min_p": 1, "repetition_penalty": 10}},
    {"generation": {"top_k": -1, "frequency_penalty": -2, "presence_penalty": 2}},
    {"model": "m" * 256, "custom_id": "c" * 256, "idempotency_key": "i" * 256},
    {"tenant": "t" * 128},
    {"timeout_s": 1, "max_attempts": 1, "result_ttl_s": 60},
    {"timeout_s": 86_400, "max_attempts": 20, "result_ttl_s": 7_776_000},
    {"metadata": {f"{n:064}": "v" * 1024 for n in range(32)}},
    {"metadata": {"": ""}},
    {"output": "file:///{job_id}" + "/x" * 1016},
    {"webhook": "https://h/" + "x" * 2038},
    {"webhook": {"url": "http://[::1]:8080/a?b=c", "events": ["job.failed"]}},
]


@pytest.mark.parametrize("fields", ACCEPTED, ids="-".join)
def test_a_value_at_its_limit_is_accepted(fields: dict[str, Any]) -> None:
    assert parse_request(make_request(**fields)) == JobRequest.model_validate(
        make_request(**fields)
    )


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"inputs": ["s3://b/k"] * 33}, "inputs", "at most 32 items"),
    ({"inputs": ["s3://b/" + "k" * 8186]}, "inputs.0.url", "at most 8192 characters"),
    ({"inputs": [""]}, "inputs.0.url", "at least 1 character"),
    ({"inputs": [{"url": "s3://b/k", "start": -0.1}]}, "inputs.0.start", "at least 0"),
    ({"inputs": [{"url": "s3://b/k", "start": 1.1e7}]}, "inputs.0.start", "at most 1"),
    ({"inputs": [{"url": "s3://b/k", "end": 0}]}, "inputs.0.end", "above 0"),
    ({"inputs": [{"url": "s3://b/k", "end": 1.1e7}]}, "inputs.0.end", "at most 1"),
    ({"inputs": [{"url": "s3://b/k", "start": 2, "end": 2}]}, "inputs.0", "end=2.0 s, expected"),
    ({"inputs": [{"url": "s3://b/k", "start": float("nan")}]}, "inputs.0.start", "finite"),
    ({"inputs": [{"kind": "image", "url": "s3://b/k", "start": 1}]}, "inputs.0.start", "unknown"),
    ({"inputs": [{"kind": "audio", "url": "s3://b/k"}]}, "inputs.0", "'audio'"),
    ({"inputs": [7]}, "inputs.0", "got 7, expected an object"),
    ({"questions": []}, "questions", "at least 1 item"),
    ({"questions": ["q"] * 65}, "questions", "at most 64 items"),
    ({"questions": ["t" * 32_769]}, "questions.0.text", "at most 32768 characters"),
    ({"questions": [{"id": "", "text": "t"}]}, "questions.0.id", "at least 1 character"),
    ({"questions": [{"id": "i" * 129, "text": "t"}]}, "questions.0.id", "at most 128 char"),
    ({"questions": [{"id": "q2", "text": "t"}, "u"]}, "request", "['q2'] more than once"),
    ({"questions": None}, "questions", "got null, expected a list"),
    ({"sampling": {"frames": 0}}, "sampling.frames", "got 0, expected at least 1"),
    ({"sampling": {"frames": 257}}, "sampling.frames", "got 257, expected at most 256"),
    ({"sampling": {"frames": 1.5}}, "sampling.frames", "got 1.5, expected a whole number"),
    ({"sampling": {"method": "random"}}, "sampling.method", "'uniform'"),
    ({"sampling": {"method": "fps"}}, "sampling", "without fps, expected fps"),
    ({"sampling": {"method": "times"}}, "sampling", "without times, expected times"),
    ({"sampling": {"fps": 1}}, "sampling", "got fps with method='uniform', expected 'fps'"),
    ({"sampling": {"tolerance_s": 1}}, "sampling", "expected 'keyframe'"),
    ({"sampling": {"method": "fps", "fps": 0}}, "sampling.fps", "above 0"),
    ({"sampling": {"method": "fps", "fps": 241}}, "sampling.fps", "at most 240"),
    ({"sampling": {"method": "times", "times": []}}, "sampling.times", "at least 1 item"),
    ({"sampling": {"method": "times", "times": [-1]}}, "sampling.times.0", "at least 0"),
    ({"sampling": {"method": "times", "times": [1], "frames": 8}}, "sampling", "the times alone"),
    ({"sampling": {"method": "times", "times": [1], "budget": 8}}, "sampling", "the times alone"),
    ({"sampling": {"budget": 1}, "inputs": ["s3://b/k", "s3://b/l"]}, "request", "for 2 videos"),
    ({"sampling": {"budget": 0}}, "sampling.budget", "at least 1"),
    ({"sampling": {"budget": 1025}}, "sampling.budget", "at most 1024"),
    (
        {"generation": {"max_new_tokens": 0}},
        "generation.max_new_tokens",
        "got 0, expected at least 1",
    ),
    ({"generation": {"max_new_tokens": 4097}}, "generation.max_new_tokens", "at most 4096"),
    ({"generation": {"temperature": -1}}, "generation.temperature", "at least 0"),
    ({"generation": {"temperature": 2.01}}, "generation.temperature", "at most 2"),
    ({"generation": {"top_p": 0}}, "generation.top_p", "above 0"),
    ({"generation": {"top_p": 1.01}}, "generation.top_p", "at most 1"),
    ({"generation": {"top_k": -2}}, "generation.top_k", "at least -1"),
    ({"generation": {"top_k": 2**31}}, "generation.top_k", "below 2147483648"),
    ({"generation": {"min_p": 1.01}}, "generation.min_p", "at most 1"),
    ({"generation": {"min_p": -0.1}}, "generation.min_p", "at least 0"),
    ({"generation": {"repetition_penalty": 0}}, "generation.repetition_penalty", "above 0"),
    ({"generation": {"repetition_penalty": 10.1}}, "generation.repetition_penalty", "at most 10"),
    ({"generation": {"frequency_penalty": 2.1}}, "generation.frequency_penalty", "at most 2"),
    ({"generation": {"presence_penalty": -2.1}}, "generation.presence_penalty", "at least -2"),
    ({"generation": {"min_p": float("nan")}}, "generation.min_p", "number"),
    ({"generation": {"repetition_penalty": float("inf")}}, "generation.repetition_penalty", ""),
    ({"generation": {"seed": -1}}, "generation.seed", "at least 0"),
    ({"generation": {"seed": 2**63}}, "generation.seed", "below 9223372036854775808"),
    ({"generation": {"stop": ["s"] * 9}}, "generation.stop", "at most 8 items"),
    ({"generation": {"stop": [""]}}, "generation.stop.0", "at least 1 character"),
    ({"generation": {"stop": ["s" * 257]}}, "generation.stop.0", "at most 256 characters"),
    ({"model": ""}, "model", "at least 1 character"),
    ({"model": "m" * 257}, "model", "at most 256 characters"),
    ({"priority": "urgent"}, "priority", "got 'urgent', expected 'interactive' or 'bulk'"),
    ({"start_by": "soon"}, "start_by", "expected a time"),
    ({"timeout_s": 0.9}, "timeout_s", "at least 1"),
    ({"timeout_s": 86_401}, "timeout_s", "at most 86400"),
    ({"max_attempts": 0}, "max_attempts", "at least 1"),
    ({"max_attempts": 21}, "max_attempts", "at most 20"),
    ({"result_ttl_s": 59}, "result_ttl_s", "at least 60"),
    ({"result_ttl_s": 7_776_001}, "result_ttl_s", "at most 7776000"),
    ({"output": ""}, "output", "at least 1 character"),
    ({"output": "s3://b/{job_id}" + "x" * 2034}, "output", "at most 2048 characters"),
    ({"idempotency_key": ""}, "idempotency_key", "at least 1 character"),
    ({"idempotency_key": "i" * 257}, "idempotency_key", "at most 256 characters"),
    ({"custom_id": ""}, "custom_id", "at least 1 character"),
    ({"custom_id": "c" * 257}, "custom_id", "at most 256 characters"),
    ({"metadata": {str(n): "" for n in range(33)}}, "metadata", "at most 32 items"),
    ({"metadata": {"k" * 65: ""}}, f"metadata.{'k' * 65}.[key]", "at most 64 characters"),
    ({"metadata": {"k": "v" * 1025}}, "metadata.k", "at most 1024 characters"),
    ({"metadata": {"k": 1}}, "metadata.k", "expected text"),
    ({"webhook": "https://h/" + "x" * 2039}, "webhook.url", "at most 2048 characters"),
    ({"webhook": ""}, "webhook.url", "at least 1 character"),
    ({"webhook": "ftp://h/x"}, "webhook.url", "expected https://host/path"),
    ({"webhook": "https:///x"}, "webhook.url", "expected https://host/path"),
    ({"webhook": "https://h:0/x"}, "webhook.url", "port 0"),
    ({"webhook": "https://h:x/x"}, "webhook.url", "could not be cast"),
    ({"webhook": "https://me:pw@h/x"}, "webhook.url", "expected none: the receiver checks the sig"),
    ({"webhook": "https://h/a b"}, "webhook.url", "write %XX"),
    ({"webhook": "https://h/a\r\nX: 1"}, "webhook.url", "write %XX"),
    ({"webhook": "https://h\\@b/"}, "webhook.url", "expected"),
    ({"webhook": {"url": "https://h", "events": []}}, "webhook.events", "at least 1 item"),
    ({"webhook": {"url": "https://h", "events": ["job.begun"]}}, "webhook.events.0", "job.failed"),
    ({"webhook": {"url": "https://h", "secret": "x"}}, "webhook.secret", "unknown field"),
    ({"colour": 8}, "colour", "unknown field; expected one of inputs, questions, sampling, "),
    ({"max_new_tokens": 8}, "max_new_tokens", "it belongs in generation={'max_new_tokens': ...}"),
    ({"start": 8}, "start", "it belongs in inputs=[{'url': ..., 'start': ...}]"),
    ({"frames": 8}, "frames", "it belongs in sampling={'frames': ...}"),
    ({"modle": "m"}, "modle", "unknown field; did you mean model?"),
    ({"sampling": {"fsp": 1}}, "sampling.fsp", "unknown field; did you mean fps?"),
    ({"generation": {"temprature": 1}}, "generation.temprature", "did you mean temperature?"),
    ({"inputs": [{"url": "s3://b/k", "strat": 1}]}, "inputs.0.strat", "did you mean start?"),
    ({"questions": [{"id": "a", "txt": "?"}]}, "questions.0.txt", "did you mean text?"),
]


@pytest.mark.parametrize(
    ("fields", "param", "says"), REFUSED, ids=[f"{p[:30]}: {s[:24]}" for _, p, s in REFUSED]
)
def test_a_value_beyond_its_limit_is_refused_by_name(
    fields: dict[str, Any], param: str, says: str
) -> None:
    error = refuse(**fields)
    assert error.code == "invalid_request"
    assert str(error).startswith(f"{param}: ")
    assert (error.param or "request") == param
    assert says in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 500


# -- URLs and templates


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/key", "s3://bucket/deep/key with blanks.mp4", "https://example.org/v.mp4?sig=a",
        "HTTP://EXAMPLE.org", "http://user:pw@[::1]:80/v", "file:///abs/v.mp4",
        "file://localhost/abs/v.mp4",
    ],
)  # fmt: skip
def test_a_url_of_a_known_scheme_is_accepted(url: str) -> None:
    assert parse_request(make_request(inputs=[url])).inputs[0].url == url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("clip.mp4", "expected s3://, http(s):// or file://"),
        ("/abs/clip.mp4", "as_uri()"),
        ("ftp://h/v", "got scheme 'ftp'"),
        ("gs://b/k", "got scheme 'gs'"),
        ("data:video/mp4;base64,AAAA", "got scheme 'data'"),
        ("s3://bucket", "expected s3://bucket/key"),
        ("s3://bucket/", "expected s3://bucket/key"),
        ("s3:///key", "expected s3://bucket/key"),
        ("https:///path", "expected http(s)://host/path"),
        ("https://:80/path", "expected http(s)://host/path"),
        ("http://[bad/", "no valid host"),
        ("file://host/share/v", "expected file:///absolute/path"),
        ("file:clip.mp4", "expected file:///absolute/path"),
        ("file://", "expected file:///absolute/path"),
    ],
)
def test_a_url_that_no_worker_could_read_is_refused(url: str, says: str) -> None:
    for value in (url, {"kind": "video", "url": url}, {"kind": "image", "url": url}):
        error = refuse(inputs=[value])
        assert error.code == "invalid_request"
        assert str(error.param).startswith("inputs.0")
        assert says in str(error)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("s3://b/fixed.json", "the same for every job, expected {job_id}"),
        ("s3://b/{date}.json", "the same for every job"),
        ("s3://b/{{job_id}}", "the same for every job"),
        ("s3://b/{tenant}/{job_id}", "['tenant']"),
        ("s3://b/{job_id.__class__}", "['job_id.__class__']"),
        ("s3://b/{}", "['']"),
        ("s3://b/{job_id", "expected a template"),
        ("s3://b/{job_id:>1000000000}", "expected bare fields"),
        ("s3://b/{job_id!r}", "expected bare fields"),
        ("https://h/{job_id}", "expected s3://bucket/... or file:///folder/..."),
        ("/results/{job_id}", "expected s3://bucket/... or file:///folder/..."),
    ],
)
def test_an_output_template_that_could_not_be_filled_is_refused(template: str, says: str) -> None:
    error = refuse(output=template)
    assert (error.code, error.param) == ("invalid_request", "output")
    assert says in str(error)


def test_an_output_by_custom_id_needs_a_custom_id() -> None:
    assert "expected custom_id to be given" in str(refuse(output="s3://b/{custom_id}"))
    assert parse_request(make_request(output="s3://b/{custom_id}", custom_id="a")).custom_id == "a"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@h:8/v.mp4?X-Amz-Signature=abc#t=1", "https://h:8/v.mp4"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("file:///data/v.mp4", "file:///data/v.mp4"),
    ],
)
def test_a_shown_url_holds_no_secret(url: str, shown: str) -> None:
    assert redact_url(url) == shown


# -- what callers may leave out


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("s3://b/k", "video"), ("s3://b/k.mp4", "video"), ("s3://b/jpg", "video"),
        ("s3://b/k.jpg", "image"), ("https://h/K.JPEG?x=.mp4", "image"), ("file:///k.webp", "video"),
        ("s3://b/k.png", "image"), ("s3://b/k.gif", "video"), ("s3://b/k.HEIC", "image"),
        ("s3://b/k.avif", "image"), ("s3://b/k.apng", "video"), ("s3://b/k.bmp", "image"),
        ("s3://b/k.tif", "image"), ("s3://b/k.tiff", "image"), ("https://h/k.mp4?x=.jpg", "video"),
    ],
)  # fmt: skip
def test_a_bare_url_is_a_video_unless_its_path_ends_like_a_picture(url: str, kind: str) -> None:
    assert parse_request(make_request(inputs=[url])).inputs[0].kind == kind
    assert parse_request(make_request(inputs=url)).inputs[0].kind == kind


def test_an_input_without_kind_is_a_video() -> None:
    assert parse_request(make_request(inputs={"url": "s3://b/k.jpg"})).inputs == (
        Video(url="s3://b/k.jpg"),
    )


def test_bare_questions_are_numbered_from_one() -> None:
    request = parse_request(make_request(questions=["a", {"id": "mine", "text": "b"}, "c"]))
    assert [(question.id, question.text) for question in request.questions] == [
        ("q1", "a"), ("mine", "b"), ("q3", "c"),
    ]  # fmt: skip
    assert parse_request(make_request(questions="a")).questions == (Question(id="q1", text="a"),)


def test_models_json_and_mappings_mean_the_same_request() -> None:
    data = make_request(inputs=["s3://b/v.mp4", "s3://b/p.jpg"])
    made = JobRequest(
        inputs=(Video(url="s3://b/v.mp4"), Image(url="s3://b/p.jpg", guessed=True)),
        questions=(Question(id="q1", text="What is it?"),),
    )
    for form in (data, json.dumps(data), json.dumps(data).encode(), made, made.model_dump()):
        assert parse_request(form) == made


def test_an_image_stays_an_image_in_a_dump_without_defaults() -> None:
    request = parse_request(make_request(inputs=[{"kind": "image", "url": "s3://b/no-suffix"}]))
    assert '"kind":"image"' in request.model_dump_json(exclude_defaults=True)


# -- errors


@pytest.mark.parametrize("text", ["", " \n\t", "<video>", " <video> \n"])
def test_a_question_without_text_is_refused(text: str) -> None:
    error = refuse(questions=["fine", text])
    assert (error.code, error.param) == ("empty_question", "questions.1.text")
    assert "q2" in str(error)


def test_a_request_without_media_is_refused() -> None:
    error = refuse(inputs=[])
    assert (error.code, error.param) == ("no_media", "inputs")
    assert "s3://bucket/clip.mp4" in str(error)


@pytest.mark.parametrize("text", ["<video><video> q", "<image> q", "<video> <image> q"])
def test_marks_that_do_not_match_the_inputs_are_refused(text: str) -> None:
    error = refuse(questions=[text])
    assert (error.code, error.param) == ("mark_mismatch", "questions.0.text")
    assert "1 videos and 0 images" in str(error)


@pytest.mark.parametrize(
    ("text", "code"), [(" \n", "empty_question"), ("See <video>.", "mark_mismatch")]
)
def test_instructions_are_text_alone(text: str, code: str) -> None:
    for name in ("system", "refine"):
        own = {"id": "a", "text": "q", name: text}
        for fields, param in (
            ({name: text}, name),
            ({"questions": ["q", own]}, f"questions.1.{name}"),
        ):
            error = refuse(**fields)
            assert (error.code, error.param) == (code, param)


def test_marks_may_place_each_input_once_in_any_order() -> None:
    both = ["s3://b/v.mp4", "s3://b/p.png"]
    for text in ("<image> then <video>?", "<video> then <image>?", "neither?"):
        assert parse_request(make_request(inputs=both, questions=[text])).questions[0].text == text


@pytest.mark.parametrize("data", ["{", "[]", b"\xff", 5, None, [], "null"])
def test_what_is_no_object_is_an_invalid_request(data: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        parse_request(data)
    assert (caught.value.code, caught.value.param) == ("invalid_request", None)


def test_all_mistakes_are_listed_the_misspelled_fields_first() -> None:
    error = refuse(timeout_s=0, max_attempts=0, priority="", tgas=["x"], sampling={"frmaes": 8})
    assert error.param == "sampling.frmaes"
    assert [text.partition(":")[0] for text in str(error).split("; ") if ": " in text] == [
        "sampling.frmaes", "tgas", "priority", "timeout_s", "max_attempts",
    ]  # fmt: skip
    assert "did you mean tags?" in str(error)
    assert "; and 5 more" in str(refuse(**{f"x{n}": 1 for n in range(25)}))
    both = refuse(questions=["", "<image> q"])
    assert (both.code, both.param) == ("empty_question", "questions.0.text")
    assert "got an empty question (q1)" in str(both)
    assert "question q2 places 0 <video> and 1 <image>" in str(both)


def test_a_path_is_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    video, image = (tmp_path / name for name in ("a cat.mp4", "p.png"))
    request = parse_request(make_request(inputs=[Path("a cat.mp4"), image, {"url": video}]))
    assert [(item.kind, item.url) for item in request.inputs] == [
        ("video", video.as_uri()), ("image", image.as_uri()), ("video", video.as_uri()),
    ]  # fmt: skip
    assert parse_request(make_request(inputs=video)).inputs[0].url == video.as_uri()
    assert Video(url=video).url == Image(url=video).url == video.as_uri()


@pytest.mark.parametrize("url", ["ftp://u:secret@h/v", "gs://b/k?signature=secret"])
def test_a_url_that_is_refused_is_shown_without_its_secrets(url: str) -> None:
    assert "secret" not in str(refuse(inputs=[url]))


def test_every_error_code_is_one_class_in_snake_case() -> None:
    ours = [cls for cls in list_classes(errors.VideoQAError) if cls.__module__ == errors.__name__]
    leaves = [cls for cls in ours if not set(cls.__subclasses__()) & set(ours)]
    assert sorted(cls.code for cls in leaves) == sorted(errors.REGISTRY)
    for code, cls in errors.REGISTRY.items():
        assert code == code.lower()
        assert code.replace("_", "").isalpha()
        assert cls.__doc__
        assert cls.stage in (None, *errors.STAGES)


def list_classes(root: type[errors.VideoQAError]) -> list[type[errors.VideoQAError]]:
    return [root, *(found for child in root.__subclasses__() for found in list_classes(child))]


@pytest.mark.parametrize("code", sorted(errors.REGISTRY))
def test_the_reference_says_what_an_error_code_means(code: str) -> None:
    cls = errors.REGISTRY[code]
    retryable = "yes" if cls.retryable else "no"
    table = (
        (REFERENCE / "errors.md").read_text().partition("## Error codes\n")[2].partition("\n## ")[0]
    )
    (row,) = [line for line in table.splitlines() if f"</a>`{code}` |" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == [cls.stage or "-", retryable]
    assert all(cells[3:5]), f"{code}: say what it means and what to do"


def test_the_type_of_a_problem_leads_to_its_codes_row() -> None:
    anchors = re.findall(r'<a id="(\w+)"></a>`(\w+)` \|', (REFERENCE / "errors.md").read_text())
    assert all(anchor == code for anchor, code in anchors)
    codes = sorted(code for code, _ in anchors)
    assert codes == sorted({*codes}), "an anchor leads to one row"
    assert {*codes} >= {*GATEWAY_CODES, *errors.REGISTRY}


@pytest.mark.parametrize("name", [*CROSSING, "EngineInfo", "Video", "Image", "Question", "Sampling", "Generation",
                                  "GenerationInForce", "Webhook", "Answer", "Segment", "FrameUsed", "Sheet",
                                  "SourceInfo", "Usage", "Warn"])  # fmt: skip
def test_the_reference_names_every_field_of_the_contract(name: str) -> None:
    section = (
        (REFERENCE / "contract.md").read_text().partition(f"### {name}\n")[2].partition("\n#")[0]
    )
    named = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert named == list(getattr(contract, name).model_fields)


# -- any request

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>"), max_size=40)
said = words.filter(str.strip)
keys = st.text("abcdefgh/-._ é", min_size=1, max_size=20).filter(
    lambda key: key.strip("/") and not {".", ".."} & {*key.split("/")}
)
urls = st.one_of(
    keys.map("s3://bucket/{}".format),
    keys.map("https://example.org/{}".format),
    keys.map("file:///{}".format),
)
moments = st.floats(0, 1e6)
videos = st.builds(
    lambda url, start, length: {"url": url, "start": start, "end": length and (start or 0) + length},
    urls, st.none() | moments, st.none() | st.floats(0.5, 1e6),
)  # fmt: skip
images = st.builds(lambda url: {"kind": "image", "url": url}, urls)
requests = st.fixed_dictionaries(
    {
        "inputs": st.lists(urls | videos | images, min_size=1, max_size=5),
        "questions": st.lists(said, min_size=1, max_size=5),
    },
    optional={
        "sampling": st.fixed_dictionaries({"frames": st.integers(1, 256)}),
        "generation": st.fixed_dictionaries(
            {
                "max_new_tokens": st.integers(1, 4096),
                "temperature": st.floats(0, 2),
                "seed": st.none() | st.integers(0, 2**63 - 1),
                "stop": st.lists(words.filter(bool), max_size=8),
            }
        ),
        "model": said,
        "priority": st.sampled_from(["interactive", "bulk"]),
        "start_by": st.timedeltas(timedelta(0), timedelta(365)).map(
            lambda delta: datetime(2026, 1, 1, tzinfo=UTC) + delta
        ),
        "timeout_s": st.floats(1, 86_400),
        "max_attempts": st.integers(1, 20),
        "custom_id": said,
        "metadata": st.dictionaries(words, words, max_size=5),
    },
)


@settings(deadline=None)  # a busy machine is no fault
@given(requests)
def test_any_valid_request_means_the_same_after_json(data: dict[str, Any]) -> None:
    request = parse_request(data)
    for text in (request.model_dump_json(), request.model_dump_json(exclude_defaults=True)):
        assert parse_request(text) == request
    assert parse_request(request) == request
