"""Renders a question and its media to a prompt in the chat format of a checkpoint.

Three sources, chosen by a setting:

- `checkpoint`: the template that comes with the checkpoint, with its processor or else with its
  tokenizer; of several, the one named `default`. A base model has none; it gets
  `PLAIN`: the media, a line break, `USER: question`, a line break, `ASSISTANT:`.
- `guide`: the string of the Hugging Face video guide and of several model cards,
  `<|im_start|>user` media, line break, question, `<|im_end|><|im_start|>assistant`. The
  templates on the hub have more line breaks than that, and answers differ.
- any other text: a Jinja template of your own. It gets `messages`, `add_generation_prompt`,
  `image_token` and `video_token`.

Templates differ in what they make of a message. Some take typed content in any order, some write
all images first, some take text alone, as typed content or as a string, and print a list as Python
would. So each way is tried once with texts that no such accident leaves as they are, and
only ways that write all text and each media token once are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError

from videoqa.errors import ConfigurationError

__all__ = ["GUIDE", "PLAIN", "ChatTemplate"]

_MEDIA = (
    "{% for item in message['content'] if item['type'] != 'text' %}"
    "{{ image_token if item['type'] == 'image' else video_token }}"
)
_TEXT = (
    "{% for item in message['content'] if item['type'] == 'text' %}{{ item['text'] }}{% endfor %}"
)
PLAIN = (
    "{% for message in messages %}"
    + _MEDIA
    + "{% if loop.last %}{{ '\n' }}{% endif %}{% endfor %}"
    + "{{ message['role'] | upper + ': ' }}"
    + _TEXT
    + "{{ '\n' }}{% endfor %}{{ 'ASSISTANT:' }}"
)
GUIDE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] }}"
    + _MEDIA
    + "{% endfor %}{{ '\n' }}"
    + _TEXT
    + "{{ '<|im_end|>' }}{% endfor %}{{ '<|im_start|>assistant' }}"
)

Item = dict[str, str]
Content = str | list[Item]
_MAX_SOURCE = 65_536
"""Characters of a template; the longest on the hub have some 20,000."""


_FAILURES = (
    TemplateError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
_BEFORE = "videoqa 'probe' \"one\" \\ é\nline two"
_AFTER = "videoqa 'probe' \"three\" \\ é\nline four"
"""Texts that `repr`, JSON and HTML escape, so that none of them passes for the text itself."""


class ChatTemplate:
    """Renders one user turn and opens the assistant's."""

    def __init__(self, processor: Any, choice: str, tokens: dict[str, str]) -> None:
        """
        Arguments:
            choice: `checkpoint`, `guide`, or the text of a template.
            tokens: the model's own token of each kind it takes: `{"image": "<image>"}`.

        Raises:
            ConfigurationError: the template cannot render a question.
        """
        self._processor = processor
        self._tokens = tokens
        source = _choose_source(processor, choice)
        self.is_plain = source is None
        """True if the checkpoint has no template at all."""
        self._source = _check_length(PLAIN if source is None else source)
        self._error: Exception | None = None
        self._as_string = self._choose_carrier()
        self._own_videos = False
        self.renders = frozenset(kind for kind in tokens if self._renders_first(kind))
        """Kinds of media that the template itself writes before a text, each as one token."""
        if choice == "checkpoint" and "video" in tokens.keys() - self.renders:
            # SmolVLM2's processor has a template for prompts with videos, in place of the checkpoint's.
            self._own_videos = True
            self.renders |= {kind for kind in ("video",) if self._renders_first(kind)}
        self.keeps_order = self.renders == tokens.keys() and all(map(self._keeps_order, tokens))
        """True if content is rendered in the order given, for every kind that the model takes."""
        self.takes_tokens = all(map(self._takes_token, tokens))
        """True if a text may hold the model's own tokens for media."""
        self._require_media()
        self._system_as_string = self._choose_system_carrier()
        self.takes_system = self._system_as_string is not None
        """True if the template writes a system message, before the user's."""

    def render(self, content: list[Item], system: str = "") -> str:
        """Returns the prompt for typed content, each picture or video as one token of the model.

        Arguments:
            system: text of a system message, for a template that takes one; empty: none.
        """
        return self._render(content, self._carry_system(system))

    def render_text(self, text: str, system: str = "") -> str:
        """Returns the prompt for a text alone, in which media may stand as the model's own tokens."""
        return self._render(_carry(text, as_string=self._as_string), self._carry_system(system))

    def _carry_system(self, text: str) -> Content | None:
        return _carry(text, as_string=bool(self._system_as_string)) if text else None

    def _render(self, content: Content, system: Content | None = None) -> str:
        variables = {f"{kind}_token": token for kind, token in self._tokens.items()}
        has_video = isinstance(content, list) and any(item["type"] == "video" for item in content)
        source = None if has_video and self._own_videos else self._source
        rendered = self._processor.apply_chat_template(
            [
                *([] if system is None else [{"role": "system", "content": system}]),
                {"role": "user", "content": content},
            ],
            chat_template=source,
            add_generation_prompt=True,
            **{name: value for name, value in variables.items() if source and name in source},
        )
        return str(rendered)

    def _choose_system_carrier(self) -> bool | None:
        """Returns True if a system message is rendered as a string, False if as typed content, None if not at all."""
        if self.is_plain:
            return None
        users: list[tuple[Content, list[str]]] = [
            (_carry(_BEFORE, as_string=self._as_string), [_BEFORE])
        ]
        users += [
            ([{"type": kind}, _text(_BEFORE)], [self._tokens[kind], _BEFORE])
            for kind in sorted(self.renders)
        ]
        for as_string in (True, False):
            system = _carry(_AFTER, as_string=as_string)
            if all(self._writes(content, [_AFTER, *written], system) for content, written in users):
                return as_string
        return None

    def _choose_carrier(self) -> bool:
        """Returns True if a text is rendered as a string, False if as typed content.

        Raises:
            ConfigurationError: it is rendered in neither way.
        """
        for as_string, content in ((False, [_text(_BEFORE)]), (True, _BEFORE)):
            if self._writes(content, [_BEFORE]):
                return as_string
        if self._error is not None:
            raise ConfigurationError(
                f"the chat template fails on a question: {self._error}; expected one that takes a "
                f"message of the user, {_NEXT_STEP}",
                param="chat_template",
            ) from self._error
        raise ConfigurationError(
            "the chat template drops the text of a question, changes it or adds media of its own; "
            + _NEXT_STEP,
            param="chat_template",
        )

    def _require_media(self) -> None:
        lost = [kind for kind in self._tokens if kind not in self.renders]
        if lost and not self.takes_tokens:
            raise ConfigurationError(
                f"the chat template fails on a question with one {lost[0]}: it writes no "
                f"{self._tokens[lost[0]]} where one belongs; {_NEXT_STEP}",
                param="chat_template",
            ) from self._error

    def _renders_first(self, kind: str) -> bool:
        """Returns True if media before one text are written before it, each as one token."""
        token = self._tokens[kind]
        return all(
            self._writes([{"type": kind}] * count + [_text(_BEFORE)], [*[token] * count, _BEFORE])
            for count in (1, 2)
        )

    def _keeps_order(self, kind: str) -> bool:
        content = [_text(_BEFORE), {"type": kind}, _text(_AFTER)]
        return self._writes(content, [_BEFORE, self._tokens[kind], _AFTER])

    def _takes_token(self, kind: str) -> bool:
        token = self._tokens[kind]
        texts = (f"{token}\n{_BEFORE}", f"{_BEFORE}{token}{_AFTER}")
        return all(self._writes(_carry(text, as_string=self._as_string), [text]) for text in texts)

    def _writes(self, content: Content, expected: list[str], system: Content | None = None) -> bool:
        """Returns True if these parts stand in the prompt in this order, and no media token besides."""
        try:
            prompt = self._render(content, system)
        except _FAILURES as error:
            self._error = error
            return False
        found = 0
        for part in expected:
            found = prompt.find(part, found)
            if found < 0:
                return False
            found += len(part)
        whole = "".join(expected)
        counted = (*self._tokens.values(), _BEFORE, _AFTER)
        return all(prompt.count(part) == whole.count(part) for part in counted)


_NEXT_STEP = 'set chat_template to "guide" or to a template of yours'


def _check_length(source: str) -> str:
    if len(source) > _MAX_SOURCE:
        raise ConfigurationError(
            f"the chat template has {len(source)} characters, expected at most {_MAX_SOURCE}; "
            + _NEXT_STEP,
            param="chat_template",
        )
    return source


def _choose_source(processor: Any, choice: str) -> str | None:
    """Returns the text of a template, or None if the checkpoint has none and none was given."""
    if choice == "guide":
        return GUIDE
    if choice != "checkpoint":
        if "{" not in choice:
            raise ConfigurationError(
                f'got chat_template={choice!r:.80}, expected "checkpoint", "guide" or a Jinja template',
                param="chat_template",
            )
        return choice
    tokenizer = getattr(processor, "tokenizer", None)
    owners = (processor, tokenizer)
    found = [own for owner in owners if (own := getattr(owner, "chat_template", None))]
    return _pick_default(found[0]) if found else None


def _pick_default(stated: str | list[dict[str, str]] | Mapping[str, str]) -> str:
    """Returns the template of that name, as transformers does; a list is what a tokenizer's file may hold."""
    if isinstance(stated, list):
        stated = {each["name"]: each["template"] for each in stated}
    if not isinstance(stated, Mapping):
        return str(stated)
    if "default" not in stated:
        raise ConfigurationError(
            f"the checkpoint has chat templates named {', '.join(sorted(stated))}, expected one named "
            "default; set chat_template to the text of one of them",
            param="chat_template",
        )
    return str(stated["default"])


def _carry(text: str, *, as_string: bool) -> Content:
    return text if as_string else [_text(text)]


def _text(text: str) -> Item:
    return {"type": "text", "text": text}
