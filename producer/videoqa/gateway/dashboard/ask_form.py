"""AskForm: the fields of the page Ask as the body of a job's request, and back from an earlier job.

Values are passed on as they were typed where they are no numbers, so that the contract's own parser words each mistake.
Fields of another sampling method are left out: the page hides them, and what was typed there is not meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeVar

from markupsafe import escape
from pydantic import ValidationError
from starlette.datastructures import FormData

from videoqa.contract import Job, Sampling, refuse_mistake
from videoqa.errors import InvalidRequest, VideoQAError
from videoqa.gateway.files.hiding import StorageUrls

__all__ = ["AskForm", "Mistake", "list_mistakes"]

T = TypeVar("T")
MOST_INPUTS, MOST_QUESTIONS = 32, 64
"""Rows of the form, as the contract has them."""
MOST_EARLIER = 20_000
"""Bytes of HTML of an earlier job's questions, and of its addresses, that the form is filled with."""
_OF_METHOD: Mapping[str, tuple[str, ...]] = {
    "uniform": ("frames", "budget"),
    "fps": ("fps", "frames", "budget"),
    "keyframe": ("frames", "tolerance_s", "budget"),
    "times": ("times",),
    "segment": ("segment", "segment_s", "min_segment_s", "overlap_s", "frames"),
    "guide": ("frames", "budget"),
}
"""Fields of each sampling method."""
_OF_ALL_METHODS = ("max_pixels", "max_tokens_per_frame")
_GENERATION = (
    "max_new_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty", "frequency_penalty",
    "presence_penalty",
)  # fmt: skip
_CARRIED = (
    "system",
    "refine",
    "answer",
    "timeout_s",
    "max_attempts",
    "result_ttl_s",
    "cache",
    "metadata",
)
"""Fields that the form does not show, which a job that is asked again carries over."""
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL = re.compile(
    r"[+-]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})(e[+-]?[0-9]{1,2})?", re.IGNORECASE
)
_LISTS = re.compile(r"[\s,;]+")


@dataclass(frozen=True)
class Mistake:
    """A mistake in the form, or a refusal."""

    param: str
    """Field of the request; empty: none of them."""
    message: str


@dataclass
class AskForm:
    """Values of the form, as they are typed."""

    inputs: list[dict[str, str]] = field(default_factory=lambda: [_make_input()])
    questions: list[str] = field(default_factory=lambda: [""])
    values: dict[str, str] = field(default_factory=dict)
    """The fields that stand once, by their names."""
    notes: list[str] = field(default_factory=list)
    """Remarks about what an earlier job's record lacks."""

    @classmethod
    def read(cls, form: FormData) -> AskForm:
        """Reads the fields that were sent."""
        columns = [_read_all(form, name) for name in ("url", "start", "end", "name")]
        width = max(map(len, columns))
        rows = [
            dict(zip(("url", "start", "end", "name"), cells, strict=True))
            for cells in zip(*(each + [""] * (width - len(each)) for each in columns), strict=True)
        ]
        filled = [row for row in rows if row["url"]]
        once = {
            name: value.strip()
            for name, value in form.multi_items()
            if isinstance(value, str) and name not in ("url", "start", "end", "name", "question")
        }
        return cls(
            filled[: MOST_INPUTS + 1] or [_make_input()],
            _read_all(form, "question")[: MOST_QUESTIONS + 1] or [""],
            once,
        )

    @classmethod
    def of_job(cls, job: Job, urls: StorageUrls) -> AskForm:
        """Fills the form with the request of an earlier job, whose record has no credentials and no webhook."""
        request = job.request
        found = cls()
        if request is None:
            return found
        found.inputs = [
            _make_input(
                (urls.find(one.url) or [one.url])[0],
                start=_show(getattr(one, "start", None)),
                end=_show(getattr(one, "end", None)),
            )
            for one in request.inputs
        ] or [_make_input()]
        found.questions = [question.text for question in request.questions]
        sampling = request.sampling.model_dump(exclude_none=True)
        if "times" in sampling:
            sampling["times"] = ", ".join(_show(one) for one in sampling["times"])
        generation = request.generation.model_dump(exclude_defaults=True)
        stop = generation.pop("stop", ())
        carried = request.model_dump(mode="json", include={*_CARRIED}, exclude_defaults=True)
        found.values = {
            **{name: _show(value) for name, value in (sampling | generation).items()},
            "model": request.model or "",
            "priority": request.priority,
            "summary": request.summary or "",
            "stop": "\n".join(stop),
            "tags": ", ".join(request.tags),
            "sheet": {None: "", True: "yes", False: "no"}[request.sheet],
            "stream": "on",
            "carried": json.dumps(carried) if carried else "",
        }
        if any(one["url"].startswith(("http://", "https://")) for one in found.inputs):
            found.notes.append(
                "A job's record has no passwords and no query of its URLs. If an address needed one, type it again."
            )
        if request.webhook is not None:
            found.notes.append("The earlier job's webhook is not carried over.")
        return found

    def shorten(self) -> None:
        """Leaves out what a page has no room for of an earlier job, and says so."""
        inputs = _take_first(self.inputs, [one["url"] for one in self.inputs])
        questions = _take_first(self.questions, self.questions)
        left_out = []
        for name, kept, given in (
            ("inputs", inputs, self.inputs),
            ("questions", questions, self.questions),
        ):
            if count := len(given) - len(kept):
                left_out.append(f"{count} of its {name}")
        for name, words in (
            ("summary", "the question about all segments"),
            ("carried", "metadata, instructions or the form of the answers"),
        ):
            if len(escape(self.get(name))) > MOST_EARLIER:
                self.values[name] = ""
                left_out.append(words)
        self.inputs, self.questions = inputs or [_make_input()], questions or [""]
        if left_out:
            self.notes.append(
                f"Left out, since it is too long for a page: {', '.join(left_out)}. `GET /v1/jobs/ID` has all."
            )

    def hide_text(self) -> None:
        """Leaves out what an earlier job has asked."""
        self.questions, self.values["summary"] = [""], ""
        carried = self._read_carried()
        for name in ("system", "refine", "answer"):
            carried.pop(name, None)
        self.values["carried"] = json.dumps(carried) if carried else ""
        self.notes.append("The earlier job's questions are hidden by VIDEOQA_HIDE_TEXT.")

    def get(self, name: str, default: str = "") -> str:
        """Returns a value as it is typed."""
        return self.values.get(name, default)

    @property
    def method(self) -> str:
        """The sampling method that is chosen."""
        return self.get("method") or "uniform"

    def make_body(self) -> dict[str, Any]:
        """Makes the body of `POST /v1/jobs`, without what is left at its default."""
        body: dict[str, Any] = {
            "inputs": [_make_body_of(one) for one in self.inputs if one["url"]],
            "questions": [text for text in self.questions if text.strip()] or self.questions[:1],
        }
        sampling = self._read_sampling()
        generation = self._read_numbers(_GENERATION)
        if stop := [one for one in self.get("stop").splitlines() if one]:
            generation["stop"] = stop
        body |= {
            name: value
            for name, value in (
                ("sampling", sampling),
                ("summary", self.get("summary") if self.method == "segment" else ""),
                ("generation", generation),
                ("model", self.get("model")),
                ("priority", self.get("priority") if self.get("priority") != "interactive" else ""),
                ("stream", self.get("stream") == "on"),
                ("tags", [one.strip() for one in self.get("tags").split(",") if one.strip()]),
            )
            if value
        }
        if self.get("sheet") in ("yes", "no"):
            body["sheet"] = self.get("sheet") == "yes"
        return self._read_carried() | body

    def _read_sampling(self) -> dict[str, Any]:
        method = self.method
        found: dict[str, Any] = {} if method == Sampling().method else {"method": method}
        names = (*_OF_METHOD.get(method, ()), *_OF_ALL_METHODS)
        found |= self._read_numbers([name for name in names if name != "times"])
        if "times" in names and self.get("times"):
            found["times"] = [_read_number(one) for one in _LISTS.split(self.get("times")) if one]
        return found

    def _read_numbers(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: _read_number(self.get(name)) for name in names if self.get(name)}

    def _read_carried(self) -> dict[str, Any]:
        """Reads the hidden fields; whatever else stands there is ignored."""
        try:
            given = json.loads(self.get("carried") or "{}")
        except (ValueError, RecursionError):
            return {}
        if not isinstance(given, dict):
            return {}
        return {name: given[name] for name in _CARRIED if name in given}


def _make_input(url: str = "", **others: str) -> dict[str, str]:
    return {"url": url, "start": "", "end": "", "name": "", **others}


def _take_first(rows: list[T], texts: Sequence[str]) -> list[T]:
    """Returns the first rows whose texts take together at most MOST_EARLIER bytes of HTML."""
    sizes = accumulate(len(escape(text).encode(errors="replace")) for text in texts)
    return [row for row, size in zip(rows, sizes, strict=True) if size <= MOST_EARLIER]


def _read_all(form: FormData, name: str) -> list[str]:
    return [str(value).strip() for value in form.getlist(name)]


def _make_body_of(row: Mapping[str, str]) -> Any:
    """Makes an input of a row: its URL alone, or a video with the clip's ends."""
    clip = {name: _read_number(row[name]) for name in ("start", "end") if row[name]}
    return {"url": row["url"], **clip} if clip else row["url"]


def _read_number(text: str) -> Any:
    """Returns the number that a text is, and else the text, which the contract refuses in its own words."""
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _show(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:g}"
        if isinstance(value, float) and abs(value) < 1e5 and round(value, 3) == value
        else str(value)
    )


def list_mistakes(error: VideoQAError) -> list[Mistake]:
    """Returns each mistake of a request with its field; a refusal without one is one mistake of no field."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__
    if cause is None or not isinstance(error, InvalidRequest):
        return [Mistake(error.param or "", _cut_param(error))]
    found = []
    for each in cause.errors(include_url=False):
        loc = tuple(part for part in each["loc"] if part not in ("video", "image"))
        one = refuse_mistake(each, loc)
        found.append(Mistake(one.param or "", _cut_param(one)))
    return found


def _cut_param(error: VideoQAError) -> str:
    """Returns the words without the field's name, beside which they stand."""
    if error.code == "no_media":
        return (
            "got no input, expected at least one video or image; upload a file, or type an address"
        )
    return error.message.removeprefix(f"{error.param}: ")
