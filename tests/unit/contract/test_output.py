"""Output templates: no two jobs render one object, and a check sees what a write uses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videoqa import errors
from videoqa.contract import (
    ObjectUrl,
    check_output,
    parse_object_url,
    parse_request,
    quote_name,
    render_output,
)
from videoqa.jobs import new_job_id

LITERALS = st.lists(
    st.sampled_from(["a", "A", ".", "..", "-", "_", "/", "//", "%2F", "%2f", "%2E", "%", "é", "e\u0301",
                     "?", "#", "{{", "}}", "\\", " ", "%00", "job_", ";", "@", ":"]),
    max_size=6,
).map("".join)  # fmt: skip
FIELDS = st.sampled_from(["{job_id}", "{custom_id}", "{date}"])
TEMPLATES = st.builds(
    lambda kind, parts: kind + "".join(text + field for text, field in parts),
    st.sampled_from(["s3://bucket/", "s3://bucket", "s3://", "file:///", "file:///r/", "file://"]),
    st.lists(st.tuples(LITERALS, FIELDS | st.just("")), min_size=1, max_size=5),
)
CUSTOM_IDS = st.text(
    st.sampled_from(list("aA./-=\\%2DEFe\u0301é?#{}:@ \x00\n\u202e")), min_size=1, max_size=6
) | st.just("x").map(lambda _: new_job_id())
DATES = st.integers(0, 3).map(lambda days: datetime(2026, 11, 23, tzinfo=UTC) + timedelta(days))


def render(template: str, job_id: str, custom_id: str | None, at: datetime) -> ObjectUrl:
    url = render_output(template, job_id=job_id, custom_id=custom_id, created_at=at)
    return parse_object_url(url)


def is_accepted(template: str) -> bool:
    try:
        check_output(template)
    except ValueError:
        return False
    return True


@given(TEMPLATES.filter(is_accepted), CUSTOM_IDS, CUSTOM_IDS, DATES, DATES)
def test_two_jobs_never_render_one_object(
    template: str, one: str, other: str, day: datetime, later: datetime
) -> None:
    fields = check_output(template)
    ids = [new_job_id(), new_job_id()]
    if "job_id" not in fields and one == other:
        return  # the same custom_id twice: the second job is refused by what it finds
    first, second = render(template, ids[0], one, day), render(template, ids[1], other, later)
    assert first != second
    for place in (first, second):  # nor do they leave the folders that the template names
        place.check_name()
        assert place.bucket == first.bucket
        assert place.name.count("/") == first.name.count("/")
    assert first == render(template, ids[0], one, day), "every attempt writes the same"


@given(CUSTOM_IDS, CUSTOM_IDS)
def test_no_two_custom_ids_have_one_name(one: str, other: str) -> None:
    assert (quote_name(one) == quote_name(other)) is (one == other)


@pytest.mark.parametrize(
    ("custom_id", "name"),
    [
        ("holiday/beach 1.mp4", "holiday--beach%201.mp4"),
        ("a-b/c.mp4", "a-b--c.mp4"),
        ("a--b", "a=2D=2Db"),
        ("a/-b", "a--=2Db"),
        ("100% who?.mp4", "100%25%20who=3F.mp4"),
        ("https://h/v.mp4", "https=3A----h--v.mp4"),
        ("..", "=2E=2E"),
    ],
)
def test_a_name_is_escaped_once_and_stays_readable(custom_id: str, name: str) -> None:
    assert quote_name(custom_id) == name


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("s3://b/all.json?{job_id}", "without query and fragment"),
        ("s3://b/all.json#{job_id}", "without query and fragment"),
        ("file:///r/all.json?{custom_id}", "without query and fragment"),
        ("s3://{job_id}/all.json", "fields in the key"),
        ("s3://b-{custom_id}/all.json", "fields in the key"),
        ("s3://b@{job_id}/all.json", "a user or a password"),
        ("s3://{job_id}", "no name of an object"),
        ("s3://b:1/{job_id}", "expected a bucket's name"),
        ("s3://b/{job_id}/../all.json", "without empty segments"),
        ("s3://b/{job_id}/%2e%2e/all.json", "without empty segments"),
        ("file:///r/{job_id}/..%2Fall.json", "without empty segments"),
        ("s3://b//{job_id}", "without empty segments"),
        ("s3://b/{job_id}/", "without empty segments"),
        ("s3://b/{job_id}%00", "NUL"),
        ("s3://b/{job_id}\n", "control character"),
        ("s3://b/{job_id}%ff", "not UTF-8"),
        ("s3://b/%{custom_id}{job_id}", "expected %25"),
        ("s3://b/%2{custom_id}", "expected %25"),
        ("s3://b/{job_id}%", "expected %25"),
        ("s3://b/" + "k" * 1024 + "{job_id}", "1024 at most"),
        ("file://host/{job_id}", "file:///folder/"),
        ("S3://b/{job_id}", "expected s3://bucket/"),
    ],
)
def test_a_template_whose_jobs_would_meet_is_refused(template: str, says: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        parse_request(
            {"inputs": ["s3://b/v"], "questions": ["q"], "output": template, "custom_id": "c"}
        )
    assert caught.value.param == "output"
    assert says in str(caught.value)
