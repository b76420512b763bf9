"""Renders typed content to a prompt in the chat format of a checkpoint.

Three sources, chosen by a setting:

- `checkpoint`: the template that comes with the checkpoint. A base model has none; it gets
  `PLAIN`: the media, a line break, `USER: question`, a line break, `ASSISTANT:`.
- `guide`: the string of the Hugging Face video guide and of several model cards,
  `<|im_start|>user` media, line break, question, `<|im_end|><|im_start|>assistant`. The
  templates on the hub have more line breaks than that, and answers differ.
- any other text: a Jinja template of your own. It gets `messages`, `add_generation_prompt`,
  `image_token` and `video_token`.

Many templates on the hub write all images first and the text after them, whatever order
the content has. The loaded one is tested once, by rendering.
"""

from __future__ import annotations

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
_MAX_SOURCE = 65_536
"""Characters of a template; the longest on the hub have some 20,000."""


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
        self._source = _load_source(processor, choice)
        orders = {kind: self._test_order(kind) for kind in tokens}
        self.keeps_order = all(order == "kept" for order in orders.values())
        """True if content is rendered in the order given, for every kind that the model takes."""
        self.renders = frozenset(kind for kind, order in orders.items() if order != "lost")
        """Kinds of media for which the template writes a token at all."""

    def render(self, content: list[Item]) -> str:
        """Returns the prompt, each picture or video as one token of the model."""
        variables = {f"{kind}_token": token for kind, token in self._tokens.items()}
        rendered = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self._source,
            add_generation_prompt=True,
            **{name: value for name, value in variables.items() if name in self._source},
        )
        return str(rendered)

    def _test_order(self, kind: str) -> str:
        """Returns `kept`, `moved` or `lost`: what the template does to a picture between texts."""
        before, after = "videoqa probe one", "videoqa probe two"
        content = [_text(before), {"type": kind}, _text(after)]
        try:
            prompt = self.render(content)
        except (TemplateError, TypeError, ValueError, KeyError, RecursionError) as error:
            raise ConfigurationError(
                f"the chat template fails on a question with one {kind}: {error}; expected one "
                'that takes typed content; set chat_template to "guide" or to a template of yours',
                param="chat_template",
            ) from error
        if before not in prompt or after not in prompt:
            raise ConfigurationError(
                "the chat template drops the text of a question; "
                'set chat_template to "guide" or to a template of yours',
                param="chat_template",
            )
        if prompt.count(self._tokens[kind]) != 1:
            return "lost"
        places = [prompt.index(part) for part in (before, self._tokens[kind], after)]
        return "kept" if places == sorted(places) else "moved"


def _load_source(processor: Any, choice: str) -> str:
    source = _choose_source(processor, choice)
    if len(source) > _MAX_SOURCE:
        raise ConfigurationError(
            f"the chat template has {len(source)} characters, expected at most {_MAX_SOURCE}; set "
            'chat_template to "guide" or to a template of yours',
            param="chat_template",
        )
    return source


def _choose_source(processor: Any, choice: str) -> str:
    if choice == "guide":
        return GUIDE
    if choice != "checkpoint":
        if "{" not in choice:
            raise ConfigurationError(
                f'got chat_template={choice!r:.80}, expected "checkpoint", "guide" or a Jinja template',
                param="chat_template",
            )
        return choice
    own = processor.chat_template
    if isinstance(own, dict):
        own = own.get("default") or next(iter(own.values()), None)
    return str(own) if own else PLAIN


def _text(text: str) -> Item:
    return {"type": "text", "text": text}
