"""ChatRequest: the body of a chat completion, as the request of a job.

Whatever would change the answer and is not supported is refused by name. Media stand in the prompt where their parts
stand in the message; media before all text leave the question without marks, as that of a native job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from videoqa.contract import IMAGE_MARK, VIDEO_MARK, is_file_id
from videoqa.errors import InvalidRequest, NoMedia, VideoQAError
from videoqa.gateway.openai.answer_form import FORM_FIELDS, read_form
from videoqa.suggestions import suggest

__all__ = ["ChatRequest", "parse_chat"]

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,), "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
    "functions": ([],), "function_call": ("none", "auto"),
    "logprobs": (False,), "top_logprobs": (0,), "logit_bias": ({},), "store": (False,),
    "service_tier": ("auto", "default"), "modalities": (["text"],),
    "audio": (), "moderation": (), "prediction": (), "reasoning_effort": (), "verbosity": (), "web_search_options": (),
    "guided_grammar": (),
    "mm_processor_kwargs": ({},), "min_tokens": (0,),
    "stop_token_ids": ([],), "ignore_eos": (False,), "best_of": (1,), "use_beam_search": (False,), "echo": (False,),
}  # fmt: skip
"""Parameters of OpenAI and vLLM that are not supported, with the values that change nothing; so does null."""
_HINTS = ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
"""Parameters of OpenAI that tell its caches about other calls, and change no answer: any value is taken."""
_READ = (
    "messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
    "seed", "stop", *FORM_FIELDS, "media_io_kwargs", "sampling", "metadata", "user",
    "safety_identifier",
)  # fmt: skip
_SYSTEM_ROLES = ("system", "developer")
_MARKS = {"video_url": VIDEO_MARK, "image_url": IMAGE_MARK}
_WITHOUT_EFFECT: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "video_url": {},
    "image_url": {"detail": (None, "auto")},
}
_CLIP = ("start", "end")
_STORED_LATER = "file-" + "0" * 24
"""Stands for a file until the bytes are stored."""


@dataclass
class ChatRequest:
    """A chat completion that was asked for."""

    job: dict[str, Any]
    """The request of its job."""
    model: str | None
    stream: bool
    include_usage: bool
    places: dict[str, str] = field(default_factory=dict)
    """Fields of the body, by the fields of the job's request that they became."""
    data: dict[int, str] = field(default_factory=dict)
    """The `data:` URLs of inputs, which `InlineMedia` stores."""
    files: list[int] = field(default_factory=list)
    """Inputs that are files of which only the store knows if they are images."""
    pieces: list[str] = field(default_factory=list)
    """The question's text, with a mark for each input."""

    def get_url(self, index: int) -> str:
        """Returns the URL, or a file's id, of an input."""
        return str(self.job["inputs"][index]["url"])

    def set_url(self, index: int, url: str) -> None:
        """Sets the URL of an input."""
        self.job["inputs"][index]["url"] = url

    def set_image(self, index: int) -> None:
        """Makes an input an image, also at its place in the question."""
        url = self.get_url(index)
        self.job["inputs"][index] = {"kind": "image", "url": url}
        marks = [n for n, piece in enumerate(self.pieces) if piece in _MARKS.values()]
        self.pieces[marks[index]] = IMAGE_MARK
        self.join_question()

    def join_question(self) -> None:
        """Makes the question of its pieces."""
        self.job["questions"] = [_join(self.pieces, len(self.job["inputs"]))]

    def translate(self, error: VideoQAError) -> VideoQAError:
        """Names the fields of the body in an error about the job's request, and returns it."""
        given = error.param or ""
        for ours, theirs in sorted(self.places.items(), key=lambda place: -len(place[0])):
            for end in ":.":
                error.message = error.message.replace(ours + end, theirs + end)
            if error.param == given and f"{given}.".startswith(f"{ours}."):
                error.param = theirs + given[len(ours) :]
        return error


def parse_chat(body: Mapping[str, Any]) -> ChatRequest:
    """Parses a body, but for what the job's request checks itself.

    Raises:
        InvalidRequest, NoMedia: with the field in `param`.
    """
    for name, value in body.items():
        if name not in _READ and name not in _HINTS:
            _check_neutral(name, value)
    found = ChatRequest(
        job={"priority": "interactive"},
        model=_read(body, "model", str),
        stream=bool(_read(body, "stream", bool)),
        include_usage=_read_include_usage(body),
    )
    found.job |= {"stream": found.stream, "model": found.model}
    _read_message(body, found)
    _read_generation(body, found)
    form, places = read_form(body)
    if form:
        found.job["answer"] = form
        found.places |= places
    _read_sampling(body, found)
    metadata = _read(body, "metadata", dict) or {}
    names = {name: _read(body, name, str) for name in ("user", "safety_identifier")}
    given = {name: text for name, text in names.items() if text is not None}
    found.job["metadata"] = {**given, **metadata}
    found.places |= {f"metadata.{name}": name for name in given}
    return found


def _check_neutral(name: str, value: Any) -> None:
    neutral = _NEUTRAL.get(name)
    if neutral is None:
        raise InvalidRequest(f"{name:.100}: unknown field; {suggest(name, _READ)}", param=name)
    if value is None or any(
        value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral
    ):
        return
    raise InvalidRequest(
        f"{name}: not supported, and the answer would not be as it asks; leave it out", param=name
    )


def _read(body: Mapping[str, Any], name: str, *kinds: type, where: str = "") -> Any:
    """Returns a value of one of these kinds, or None; a number is never taken from text or from a truth value."""
    value = body.get(name)
    if value is None or (
        isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
    ):
        return value
    words = {
        str: "text",
        bool: "true or false",
        int: "an integer",
        float: "a number",
        dict: "an object",
        list: "a list",
    }
    expected = " or ".join(words[kind] for kind in kinds)
    raise InvalidRequest(
        f"{where}{name}: got {type(value).__name__}, expected {expected}", param=where + name
    )


def _refuse_others(found: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in found:
        if name not in known:
            raise InvalidRequest(
                f"{where}.{name:.100}: unknown field; {suggest(name, known)}",
                param=f"{where}.{name}",
            )


def _read_include_usage(body: Mapping[str, Any]) -> bool:
    options = _read(body, "stream_options", dict)
    if options is None:
        return False
    if body.get("stream") is not True:
        raise InvalidRequest(
            "stream_options: expected it with stream: true only", param="stream_options"
        )
    _refuse_others(options, ("include_usage", "include_obfuscation"), "stream_options")
    if _read(options, "include_obfuscation", bool, where="stream_options."):
        raise InvalidRequest(
            "stream_options.include_obfuscation: not supported; leave it out",
            param="stream_options.include_obfuscation",
        )
    return bool(_read(options, "include_usage", bool, where="stream_options."))


def _read_message(body: Mapping[str, Any], found: ChatRequest) -> None:
    """Reads the system messages and the user's one: its media become inputs, and its text the question."""
    messages = _read(body, "messages", list)
    if not messages:
        raise InvalidRequest("messages: expected one message of the user", param="messages")
    for n, message in enumerate(messages):
        _check_role(n, message, is_last=n == len(messages) - 1)
    *instructions, message = messages
    if any(each["role"] == "user" for each in instructions):
        raise InvalidRequest(
            "messages: got several of the user, expected one, behind the system messages; put all into one",
            param="messages",
        )
    _read_system(instructions, found)
    place = f"messages.{len(instructions)}.content"
    inputs: list[dict[str, Any]] = []
    for where, part in _list_parts(message, len(instructions)):
        if part.get("type") == "text":
            found.pieces.append(_read_text(part, where))
        else:
            _read_input(part, where, found, inputs)
    if not inputs:
        raise NoMedia(
            f"{place}: got no video and no image, expected a part such as "
            '{"type": "video_url", "video_url": {"url": "https://..."}}',
            param=place,
        )
    found.places |= {"inputs": place, "questions.0.text": place}
    found.job["inputs"] = inputs
    found.join_question()


def _check_role(n: int, message: Any, *, is_last: bool) -> None:
    if not isinstance(message, dict):
        raise InvalidRequest(f"messages.{n}: expected an object", param=f"messages.{n}")
    role = message.get("role")
    if role != "user" and (is_last or role not in _SYSTEM_ROLES):
        raise InvalidRequest(
            f"messages.{n}.role: got {role!r:.50}, expected {'user' if is_last else 'system'}: system messages, and "
            "then one of the user; earlier answers are not supported",
            param=f"messages.{n}.role",
        )


def _read_system(messages: Sequence[Mapping[str, Any]], found: ChatRequest) -> None:
    """Reads system messages, as one text; empty ones count for nothing."""
    texts: list[str] = []
    for n, message in enumerate(messages):
        for where, part in _list_parts(message, n):
            if part.get("type") != "text":
                raise InvalidRequest(
                    f"{where}.type: got {part.get('type')!r:.50}, expected text: inputs stand in the user's message",
                    param=f"{where}.type",
                )
            texts.append(_read_text(part, where))
    given = [text for text in texts if text.strip()]
    if given:
        found.job["system"] = "\n\n".join(given)
        found.places["system"] = "messages.0.content"


def _list_parts(message: Mapping[str, Any], n: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the place and the fields of each part of a message; a bare text is one part."""
    if message.get("name") is None:
        message = {name: value for name, value in message.items() if name != "name"}
    _refuse_others(message, ("role", "content"), f"messages.{n}")
    content = _read(message, "content", str, list, where=f"messages.{n}.")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    for number, part in enumerate(parts):
        where = f"messages.{n}.content.{number}"
        if not isinstance(part, dict):
            raise InvalidRequest(f"{where}: expected an object", param=where)
        yield where, part


def _read_input(
    part: Mapping[str, Any], where: str, found: ChatRequest, inputs: list[dict[str, Any]]
) -> None:
    """Reads a part that is no text, as the next input, and its mark in the question."""
    kind = part.get("type")
    if kind == "file":
        found.places[f"inputs.{len(inputs)}.url"] = f"{where}.file.file_id"
        found.files.append(len(inputs))
        inputs.append({"kind": "video", "url": _read_file(part, where)})
        found.pieces.append(VIDEO_MARK)
        return
    if kind not in ("video_url", "image_url"):
        raise InvalidRequest(
            f"{where}.type: got {kind!r:.50}, expected text, video_url, image_url or file",
            param=f"{where}.type",
        )
    found.places[f"inputs.{len(inputs)}"] = f"{where}.{kind}"
    media = _read_media(part, kind, where)
    if media["url"].startswith("data:"):
        _check_data(media["url"], kind, f"{where}.{kind}.url")
        found.data[len(inputs)] = media["url"]
        media["url"] = _STORED_LATER
    inputs.append(media)
    found.pieces.append(_MARKS[kind])


def _join(pieces: list[str], inputs: int) -> str:
    """Joins texts, with marks between them unless all media come first, as they do without marks."""
    marks = tuple(_MARKS.values())
    if all(piece in marks for piece in pieces[:inputs]):
        return "\n".join(pieces[inputs:])
    question = ""
    for before, piece in zip(["", *pieces], pieces, strict=False):
        is_text_after_text = before and before not in marks and piece not in marks
        question += f"\n{piece}" if is_text_after_text else piece
    return question


def _read_text(part: Mapping[str, Any], where: str) -> str:
    _refuse_others(part, ("type", "text"), where)
    text = _read(part, "text", str, where=f"{where}.")
    if text is None:
        raise InvalidRequest(f"{where}.text: expected text", param=f"{where}.text")
    for mark in _MARKS.values():
        if mark in text:
            raise InvalidRequest(
                f"{where}.text: got {mark}, which places an input; put the part itself there instead",
                param=f"{where}.text",
            )
    return cast(str, text)


def _check_data(url: str, kind: str, where: str) -> None:
    """Refuses a `data:` URL of another kind; its bytes are looked at when they are stored."""
    wanted = kind.removesuffix("_url") + "/"
    if not url.startswith(f"data:{wanted}"):
        raise InvalidRequest(
            f"{where}: got {url[:40]!r}, expected data:{wanted}...;base64,...", param=where
        )


def _read_file(part: Mapping[str, Any], where: str) -> str:
    _refuse_others(part, ("type", "file"), where)
    where = f"{where}.file"
    file = part.get("file")
    if not isinstance(file, dict):
        raise InvalidRequest(f'{where}: expected an object: {{"file_id": ...}}', param=where)
    _refuse_others(file, ("file_id",), where)
    file_id = _read(file, "file_id", str, where=f"{where}.")
    if file_id is None or not is_file_id(file_id):
        raise InvalidRequest(
            f"{where}.file_id: got {file_id!r:.100}, expected the id of an uploaded file",
            param=f"{where}.file_id",
        )
    return cast(str, file_id)


def _read_media(part: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    _refuse_others(part, ("type", kind), where)
    where = f"{where}.{kind}"
    media = part.get(kind)
    if not isinstance(media, dict):
        raise InvalidRequest(f'{where}: expected an object: {{"url": ...}}', param=where)
    neutral = _WITHOUT_EFFECT[kind]
    known = ("url", *_CLIP) if kind == "video_url" else ("url",)
    _refuse_others(media, (*known, *neutral), where)
    for name, values in neutral.items():
        if media.get(name) not in values:
            raise InvalidRequest(
                f"{where}.{name}: got {media[name]!r:.50}, expected auto, or nothing",
                param=f"{where}.{name}",
            )
    url = _read(media, "url", str, where=f"{where}.")
    if url is None:
        raise InvalidRequest(f"{where}.url: got none, expected a URL", param=f"{where}.url")
    read: dict[str, Any] = {"kind": kind.removesuffix("_url"), "url": url}
    if kind == "video_url":
        read |= {name: _read(media, name, int, float, where=f"{where}.") for name in _CLIP}
    return read


def _read_generation(body: Mapping[str, Any], found: ChatRequest) -> None:
    generation: dict[str, Any] = {}
    numbers = {
        "temperature": (int, float), "top_p": (int, float), "top_k": (int,), "min_p": (int, float),
        "repetition_penalty": (int, float), "frequency_penalty": (int, float), "presence_penalty": (int, float),
        "seed": (int,), "max_tokens": (int,), "max_completion_tokens": (int,),
    }  # fmt: skip
    for name, kinds in numbers.items():
        value = _read(body, name, *kinds)
        if value is None:
            continue
        ours = "max_new_tokens" if name.startswith("max_") else name
        if generation.get(ours, value) != value:
            raise InvalidRequest(
                f"{name}: got {value}, and max_tokens: {generation[ours]}; give one of the two",
                param=name,
            )
        generation[ours] = value
        found.places[f"generation.{ours}"] = name
    stop = _read(body, "stop", str, list)
    if stop is not None:
        generation["stop"] = [stop] if isinstance(stop, str) else stop
        found.places["generation.stop"] = "stop"
    found.job["generation"] = generation


def _read_sampling(body: Mapping[str, Any], found: ChatRequest) -> None:
    """Reads `sampling`, as a job has it, or vLLM's `media_io_kwargs.video`."""
    sampling = _read(body, "sampling", dict)
    kwargs = _read(body, "media_io_kwargs", dict)
    if kwargs is not None:
        if sampling is not None:
            raise InvalidRequest(
                "media_io_kwargs: got it with sampling, expected one of the two",
                param="media_io_kwargs",
            )
        sampling = _read_video_kwargs(kwargs, found)
    if sampling is not None and sampling.get("method") == "segment":
        raise InvalidRequest(
            "sampling.method: got segment, whose answers are many; submit a job: POST /v1/jobs",
            param="sampling.method",
        )
    if sampling is not None:
        found.job["sampling"] = sampling


def _read_video_kwargs(kwargs: Mapping[str, Any], found: ChatRequest) -> dict[str, Any]:
    where = "media_io_kwargs.video"
    _refuse_others(kwargs, ("video",), "media_io_kwargs")
    video = _read(kwargs, "video", dict, where="media_io_kwargs.") or {}
    _refuse_others(video, ("num_frames", "fps"), where)
    frames = _read(video, "num_frames", int, where=f"{where}.")
    fps = _read(video, "fps", int, float, where=f"{where}.")
    found.places |= {"sampling.frames": f"{where}.num_frames", "sampling.fps": f"{where}.fps"}
    if frames is not None and fps is not None:
        raise InvalidRequest(
            f"{where}: got num_frames and fps, expected one of the two; frames at a rate with a limit are "
            'sampling: {"method": "fps", "fps": 2, "frames": 16}',
            param=where,
        )
    if fps is not None:
        return {"method": "fps", "fps": fps}
    return {} if frames is None else {"frames": frames}
