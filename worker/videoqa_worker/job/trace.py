"""AttemptTrace: the spans of one attempt of a job, where this worker traces.

`process videoqa` is the span of the attempt. Below it lie the stages, which the steps of the attempt mark by
`stage`, and the questions, whose spans are written when their answers have come. Without tracing all of it is
`NO_TRACE`, which does nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from videoqa.contract import Generation
from videoqa.jobs import Claim
from videoqa.telemetry.genai import ERROR_TYPE, describe_answer, describe_chat, describe_job
from videoqa.telemetry.trace_context import (
    TraceContext,
    derive_span_id,
    derive_trace_id,
    find_trace_id,
)
from videoqa.telemetry.tracing import find_provider, make_parent

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span

    from videoqa_worker.engine import Generated

__all__ = ["NO_TRACE", "AskedAt", "AttemptTrace", "begin_trace"]

MOST_SPANS = 64
"""Spans of one name in an attempt: a long video in segments has thousands of questions."""


class AskedAt:
    """The moments of a question: asked, built, answered, in nanoseconds since 1970."""

    def __init__(self) -> None:
        self.asked = time.time_ns()
        self.built = self.answered = self.asked

    def note_built(self, future: Future[Generated]) -> None:
        """Notes that the prompt is built and waits for the engine, whose thread notes when the answer is there."""
        self.built = self.answered = time.time_ns()
        future.add_done_callback(self._note_answered)

    def _note_answered(self, _: Future[Generated]) -> None:
        self.answered = time.time_ns()


class AttemptTrace:
    """No trace: all of its methods do nothing."""

    is_on = False

    def running(self) -> AbstractContextManager[None]:
        """Ends the attempt's span with the block."""
        return nullcontext()

    def stage(self, name: str) -> AbstractContextManager[dict[str, Any]]:
        """Traces the block as a stage; what it puts into the yielded dictionary becomes attributes."""
        return nullcontext({})

    def note(self, **fields: Any) -> None:
        """Adds attributes of the job to the attempt's span."""

    def note_error(self, code: str) -> None:
        """Marks the attempt as failed."""

    def add_answer(self, asked: AskedAt, generation: Generation, generated: Generated) -> None:
        """Adds the spans of a question that was answered."""


NO_TRACE = AttemptTrace()


class _SpanTrace(AttemptTrace):
    """The spans of an attempt; used by the job's thread."""

    is_on = True

    def __init__(self, claim: Claim, model: str) -> None:
        from opentelemetry import trace

        self._trace = trace
        self._tracer = trace.get_tracer("videoqa_worker")
        self._model = model
        self._counts: Counter[str] = Counter()
        now, request = time.time_ns(), claim.request
        begun = now - round(1e9 * claim.claim_s)
        self._span = self._start_attempt(
            claim,
            begun,
            describe_job(
                id=claim.job_id,
                attempt=claim.attempt,
                priority=request.priority,
                tenant=request.tenant,
            )
            | {"messaging.operation.type": "process"},
        )
        self._context = trace.set_span_in_context(self._span)
        self._add("queued", begun - round(1e9 * claim.queued_s), begun)
        self._add("claim", begun, now)

    def _start_attempt(self, claim: Claim, begun: int, attributes: dict[str, Any]) -> Span:
        trace_id = find_trace_id(claim.job_id, claim.traceparent)
        caller = TraceContext.parse(claim.traceparent)
        links = [self._make_link(caller.trace_id, caller.span_id, caller.flags)] if caller else []
        if claim.previous:
            before = derive_span_id(claim.job_id, claim.previous)
            links.append(self._make_link(trace_id, before, caller.flags if caller else "01"))
        is_child = caller is not None and not caller.is_link
        provider = find_provider()
        chosen = getattr(provider and provider.id_generator, "choose", None)
        span_id = derive_span_id(claim.job_id, claim.token)
        if caller is None or not is_child:
            # A trace of its own: without our generator of ids, below a span that nobody sends.
            parent = (
                self._trace.set_span_in_context(self._trace.INVALID_SPAN)
                if chosen
                else make_parent(TraceContext(derive_trace_id(claim.job_id), span_id))
            )
        else:
            parent = make_parent(caller)
        with chosen(trace_id, span_id) if chosen else nullcontext():
            return self._tracer.start_span(
                "process videoqa",
                context=parent,
                kind=self._trace.SpanKind.CONSUMER,
                links=links,
                attributes=attributes,
                start_time=begun,
                record_exception=False,
                set_status_on_exception=False,
            )

    def _make_link(self, trace_id: str, span_id: str, flags: str) -> Link:
        context = self._trace.SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(int(flags, 16)),
        )
        return self._trace.Link(context)

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            with self._trace.use_span(
                self._span, record_exception=False, set_status_on_exception=False
            ):
                yield
        finally:
            dropped = sum(max(0, count - MOST_SPANS) for count in self._counts.values())
            if dropped:
                self.note(spans_dropped=dropped)
            self._span.end()

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        attributes: dict[str, Any] = {}
        if not self._may_add(name):
            yield attributes
            return
        with self._tracer.start_as_current_span(
            name, context=self._context, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield attributes
            except Exception as error:
                self._mark(span, str(getattr(error, "code", type(error).__name__)))
                raise
            finally:
                span.set_attributes(attributes)

    def note(self, **fields: Any) -> None:
        self._span.set_attributes(describe_job(**fields))

    def note_error(self, code: str) -> None:
        self._mark(self._span, code)

    def _mark(self, span: Span, code: str) -> None:
        span.set_attribute(ERROR_TYPE, code)
        # A cancel is asked for, and a worker that stops gives its jobs back.
        if code not in ("canceled", "worker_stopping"):
            span.set_status(self._trace.StatusCode.ERROR)

    def add_answer(self, asked: AskedAt, generation: Generation, generated: Generated) -> None:
        if not self._may_add("chat"):
            return
        chat = self._tracer.start_span(
            f"chat {self._model}",
            context=self._context,
            kind=self._trace.SpanKind.INTERNAL,
            attributes=describe_chat(
                model=self._model,
                max_tokens=generation.max_new_tokens,
                temperature=generation.temperature,
                seed=generation.seed,
            )
            | describe_answer(
                model=self._model,
                input_tokens=generated.input_tokens,
                output_tokens=generated.output_tokens,
                finish_reason=generated.finish_reason,
                first_token_s=generated.first_token_s,
            ),
            start_time=asked.asked,
        )
        within = self._trace.set_span_in_context(chat)
        first = min(asked.built + round(1e9 * generated.first_token_s), asked.answered)
        self._add("prompt", asked.asked, asked.built, within)
        self._add("prefill", asked.built, first, within)
        self._add("decode", first, asked.answered, within)
        chat.end(asked.answered)

    def _add(self, name: str, begun: int, ended: int, context: Any = None) -> None:
        """Adds a span whose time is over."""
        span = self._tracer.start_span(name, context=context or self._context, start_time=begun)
        span.end(ended)

    def _may_add(self, name: str) -> bool:
        self._counts[name] += 1
        return self._counts[name] <= MOST_SPANS


def begin_trace(claim: Claim, model: str) -> AttemptTrace:
    """Begins the trace of an attempt, or none where this worker does not trace."""
    return NO_TRACE if find_provider() is None else _SpanTrace(claim, model)
