"""Filters of jobs as query parameters, which lists and counts share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from videoqa import errors
from videoqa.contract import MOST_TEXT, FilterKeywords, JobState, parse_filter
from videoqa.gateway.reference import examples
from videoqa.gateway.reference.parameters import EXAMPLE_JOB, Instant, OnlyTenant

__all__ = ["FilterQuery", "read_filter"]


def read_filter(
    state: Annotated[
        JobState | None, Query(description="Only jobs in this state.", examples=["failed"])
    ] = None,
    tenant: OnlyTenant = None,
    tag: Annotated[
        str | None, Query(description="Only jobs with this tag.", examples=["parade"])
    ] = None,
    model: Annotated[
        str | None,
        Query(description="Only jobs that name this model.", examples=[examples.MODEL]),
    ] = None,
    code: Annotated[
        str | None,
        Query(
            description="Only dead letters with this error code, the last that failed first; `other`: with a code that "
            "this release does not know.",
            examples=["worker_lost"],
        ),
    ] = None,
    group: Annotated[
        str | None,
        Query(
            description="Only dead letters of this group of `GET /v1/dead-letters/groups`.",
            examples=["00000002"],
        ),
    ] = None,
    worker: Annotated[
        str | None,
        Query(
            description="Only jobs whose last attempt this worker has, or had.",
            examples=["gpu-1:1200"],
        ),
    ] = None,
    custom_id: Annotated[
        str | None,
        Query(
            description="Only jobs whose `custom_id` begins with this.", examples=["2026/parade"]
        ),
    ] = None,
    job_id: Annotated[
        str | None,
        Query(description="Only jobs whose id begins with this.", examples=[EXAMPLE_JOB]),
    ] = None,
    q: Annotated[
        str | None,
        Query(
            max_length=MOST_TEXT,
            description="Only jobs with this text in a question or in an input's URL, in any case.",
            examples=["crowd"],
        ),
    ] = None,
    since: Annotated[
        Instant | None,
        Query(
            description="Only jobs submitted at this time or later.",
            examples=["2026-11-30T00:00:00Z"],
        ),
    ] = None,
    until: Annotated[
        Instant | None,
        Query(
            description="Only jobs submitted before this time.", examples=["2036-12-01T00:00:00Z"]
        ),
    ] = None,
    ended_since: Annotated[
        Instant | None,
        Query(
            description="Only jobs that ended at this time or later.",
            examples=["2026-11-30T00:00:00Z"],
        ),
    ] = None,
    ended_until: Annotated[
        Instant | None,
        Query(
            description="Only jobs that ended before this time.", examples=["2036-12-01T00:00:00Z"]
        ),
    ] = None,
) -> FilterKeywords:
    """Returns the filter of a request's query; raises InvalidRequest."""
    fields: FilterKeywords = {
        "state": state,
        "tenant": tenant,
        "tag": tag,
        "model": model,
        "code": code,
        "group": group,
        "worker": worker,
        "custom_id": custom_id,
        "job_id": job_id,
        "text": q,
        "since": since,
        "until": until,
        "ended_since": ended_since,
        "ended_until": ended_until,
    }
    try:
        parse_filter(fields)
    except errors.InvalidRequest as error:
        param = "q" if error.param == "text" else error.param
        raise errors.InvalidRequest(error.message, param=param) from error
    return fields


FilterQuery = Annotated[FilterKeywords, Depends(read_filter)]
