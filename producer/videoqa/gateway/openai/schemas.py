"""Schemas of chat completions, for the OpenAPI document: `chat_request.py` reads and checks the bodies itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from videoqa.contract import Sampling

__all__ = ["ChatBody", "ChatCompletion", "ChatCompletionChunk", "OpenAIError"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class VideoUrl(_Strict):
    """A video, or the part of it from `start` to `end`, in seconds.

    Its URL may be a file's id, or `data:video/mp4;base64,...`.
    """

    url: str
    start: float | None = None
    end: float | None = None


class ImageUrl(_Strict):
    """A still picture; a URL, a file's id, or `data:image/png;base64,...`."""

    url: str
    detail: Literal["auto"] | None = None


class TextPart(_Strict):
    """A part of the question's text."""

    type: Literal["text"]
    text: str


class VideoPart(_Strict):
    """A video, at its place in the question."""

    type: Literal["video_url"]
    video_url: VideoUrl


class ImagePart(_Strict):
    """A picture, at its place in the question."""

    type: Literal["image_url"]
    image_url: ImageUrl


class FileId(_Strict):
    """A file that was uploaded by `POST /v1/files`."""

    file_id: str


class FilePart(_Strict):
    """An uploaded video or picture, at its place in the question."""

    type: Literal["file"]
    file: FileId


Part = Annotated[TextPart | VideoPart | ImagePart | FilePart, Field(discriminator="type")]


class UserMessage(_Strict):
    """The one message of a chat."""

    role: Literal["user"]
    content: Annotated[list[Part], Field(min_length=1)]


class StreamOptions(_Strict):
    """Options of a streamed answer."""

    include_usage: bool | None = None


class VideoKwargs(_Strict):
    """The choice of a video's frames, in vLLM's words."""

    num_frames: Annotated[int, Field(ge=1, le=256)] | None = None
    fps: Annotated[float, Field(gt=0, le=240)] | None = None


class MediaKwargs(_Strict):
    """Options of media, in vLLM's words."""

    video: VideoKwargs | None = None


class JsonSchemaFormat(_Strict):
    """A JSON Schema, in OpenAI's words."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Strict):
    """The form of an answer, in OpenAI's words."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(_Strict):
    """The form of an answer, in vLLM's words; one of the three."""

    json_: dict[str, Any] | None = Field(default=None, alias="json")
    choice: list[str] | None = None
    regex: str | None = None


class ChatBody(BaseModel):
    """A question about the videos and images of one message.

    OpenAI's and vLLM's parameters that are not listed here are refused by name, unless they change nothing.
    """

    model_config = ConfigDict(extra="allow")

    messages: list[UserMessage] = Field(min_length=1, max_length=1)
    model: str | None = None
    """A model that `GET /v1/models` lists; null: the workers' default."""
    stream: bool | None = None
    """True: the answer comes as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    """vLLM's: only so many of the most likely tokens are drawn from; 0 or -1: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """vLLM's: only tokens with this share of the likeliest one's probability are drawn from."""
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    """vLLM's: above 1, tokens of prompt and answer become less likely; null: as the checkpoint states."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | list[str] | None = None
    response_format: ResponseFormat | None = None
    """The form of the answer: free text, a JSON object, or JSON that a schema describes."""
    structured_outputs: StructuredOutputs | None = None
    """vLLM's: the form of the answer, in one of its fields; its older `guided_json`, `guided_choice` and
    `guided_regex` are taken as well."""
    sampling: Sampling | None = None
    """The choice of each video's frames, as a job has it."""
    media_io_kwargs: MediaKwargs | None = None
    """The choice of each video's frames in vLLM's words."""
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None


class AssistantMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(BaseModel):
    """The one choice of a completion."""

    index: int
    message: AssistantMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class TokenUsage(BaseModel):
    """Tokens of the prompt and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: TokenUsage


class ChunkDelta(BaseModel):
    """The next piece of an answer."""

    role: Literal["assistant"] | None = Field(default=None, exclude_if=lambda role: role is None)
    content: str | None = Field(default=None, exclude_if=lambda content: content is None)


class ChunkChoice(BaseModel):
    """The one choice of a chunk."""

    index: int
    delta: ChunkDelta
    logprobs: None
    finish_reason: Literal["stop", "length"] | None


class ChatCompletionChunk(BaseModel):
    """A piece of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: TokenUsage | None = Field(default=None, exclude_if=lambda usage: usage is None)
    """With `include_usage`: null, but in the last chunk."""


class OpenAIErrorBody(BaseModel):
    """The details of an error, in OpenAI's form."""

    message: str
    type: str
    param: str | None
    code: str
    """The stable code; the reference has its meaning and the next step."""


class OpenAIError(BaseModel):
    """An error in OpenAI's form."""

    error: OpenAIErrorBody
