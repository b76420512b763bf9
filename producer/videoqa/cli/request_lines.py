"""Requests in words: the lines by which `status` and `dead show` tell what a job was asked."""

from __future__ import annotations

from collections.abc import Iterator

from videoqa.contract import (
    DEFAULT_FPS_CAP,
    AnswerForm,
    ChoiceAnswer,
    Generation,
    Image,
    Input,
    JobRequest,
    JsonAnswer,
    NumberAnswer,
    RegexAnswer,
    Sampling,
    TextAnswer,
)

__all__ = ["describe_sampling", "format_request", "join_lines"]

_MOST_LINES = 8
"""Inputs and questions that are shown; `--json` has all."""
_LONGEST = 500
"""Characters of a question that are shown."""


def format_request(request: JobRequest) -> Iterator[tuple[str, str]]:
    """Yields the label and the text of each line."""
    yield from _label("input", [_describe_input(item) for item in request.inputs])
    yield from _label("question", [_shorten(question.text) for question in request.questions])
    if request.system is not None:
        yield "system", _shorten(request.system)
    if request.refine is not None:
        yield "refine", _shorten(request.refine)
    if request.summary is not None:
        yield "summary", _shorten(request.summary)
    yield "model", request.model or "the workers' default model"
    yield "sampling", describe_sampling(request.sampling)
    if request.generation != Generation():
        yield "answer", _describe_generation(request.generation)
    if request.answer is not None:
        yield "form", _shorten(_describe_form(request.answer))
    if request.cache != "use":
        yield "cache", request.cache


def join_lines(text: str) -> str:
    """Returns the text on one line."""
    return " ".join(text.split())


def describe_sampling(sampling: Sampling) -> str:
    """Returns the choice of frames as a phrase."""
    count = "frames" if sampling.frames is None else f"{sampling.frames} frames"
    match sampling.method:
        case "fps":
            text = f"{sampling.fps:g} frames a second, at most {sampling.frames or DEFAULT_FPS_CAP}"
        case "times":
            times = sampling.times or ()
            shown = ", ".join(f"{time:g}" for time in times[:_MOST_LINES])
            text = f"the frames at {shown}{', ...' if len(times) > _MOST_LINES else ''} s"
        case "keyframe":
            near = "" if sampling.tolerance_s is None else f" within {sampling.tolerance_s:g} s"
            text = f"{count} spread evenly, nearest keyframes{near}"
        case "segment":
            overlap = f", each {sampling.overlap_s:g} s into the next" if sampling.overlap_s else ""
            length = f"segments of {sampling.segment_s or 0:g} s{overlap}"
            if sampling.segment == "shots":
                length = f"shots of {sampling.shortest_s:g} to {sampling.longest_s:g} s"
            text = f"{length}, {count} spread evenly in each"
        case "guide":
            text = f"{count} as Hugging Face's guide takes them"
        case _:
            text = f"{count} spread evenly"
    if sampling.frames is None and sampling.method not in ("fps", "times"):
        text += " (as many as the model states, else 8)"
    text += f"; at most {sampling.budget} of all videos" if sampling.budget else ""
    limits = ((sampling.max_pixels, "pixels"), (sampling.max_tokens_per_frame, "tokens"))
    return text + "".join(f"; at most {most} {name} each" for most, name in limits if most)


def _describe_input(item: Input) -> str:
    if isinstance(item, Image) or (item.start, item.end) == (None, None):
        return item.url
    end = "its end" if item.end is None else f"{item.end:g} s"
    return f"{item.url}, from {item.start or 0:g} s to {end}"


def _describe_generation(generation: Generation) -> str:
    parts = [f"at most {generation.max_new_tokens} tokens"]
    if generation.temperature:
        seed = "" if generation.seed is None else f" and seed {generation.seed}"
        parts.append(f"temperature {generation.temperature:g}{seed}")
    if generation.top_p != 1:
        parts.append(f"top_p {generation.top_p:g}")
    for name in ("top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"):
        if value := getattr(generation, name):
            parts.append(f"{name} {value:g}")
    if generation.stop:
        parts.append("ends before " + " or ".join(map(repr, generation.stop)))
    return ", ".join(parts)


def _describe_form(form: AnswerForm) -> str:
    match form:
        case ChoiceAnswer(choices=choices):
            return "one of " + ", ".join(map(repr, choices))
        case RegexAnswer(pattern=pattern):
            return f"text of the form {pattern}"
        case NumberAnswer():
            return "a number"
        case JsonAnswer():
            return "JSON of a schema"
        case TextAnswer():
            return "free text"


def _shorten(text: str) -> str:
    line = join_lines(text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}… (--json has all of it)"


def _label(name: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    """Yields the lines of a list: the label stands before the first."""
    for number, text in enumerate(texts[:_MOST_LINES]):
        yield ("" if number else name), text
    if len(texts) > _MOST_LINES:
        yield "", f"and {len(texts) - _MOST_LINES} more (--json has all)"
