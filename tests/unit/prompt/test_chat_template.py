"""Chat templates: found where transformers finds them, and rendered as it renders them, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.models import HALF, IN_ORDER, clip, picture
from transformers import AutoConfig, LlavaProcessor, SiglipImageProcessorPil

from videoqa.errors import ConfigurationError, UnsupportedInput
from videoqa_worker.engine import load_processor
from videoqa_worker.prompt import FrameInput, Prompter

WITHOUT = ("*.safetensors", "chat_template.jinja")


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A checkpoint without weights and without a template, whose tokenizer begins with `<s>`."""
    copied = tmp_path / "checkpoint"
    shutil.copytree(checkpoint("next"), copied, ignore=shutil.ignore_patterns(*WITHOUT))
    for name in ("config.json", "processor_config.json", "preprocessor_config.json"):
        shutil.copy(checkpoint("interleave") / name, copied)
    return copied


def load(folder: Path) -> Any:
    return load_processor(str(folder), AutoConfig.from_pretrained(folder), "reference")


def prompter(folder: Path, processor: Any = None) -> Prompter:
    return Prompter(processor or load(folder), AutoConfig.from_pretrained(folder))


def change(folder: Path, name: str, **changes: Any) -> None:
    stated = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**stated, **changes}))


def write(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template)
    return folder


def render_by_transformers(own: Any, content: Any) -> str:
    """The processor's own rendering, or the tokenizer's where the processor has no template."""
    owner = own if own.chat_template else own.tokenizer
    options = {"tokenize": False, "add_generation_prompt": True}
    return str(owner.apply_chat_template([{"role": "user", "content": content}], **options))


def encode_by_transformers(own: Any, prompt: str, media: list[FrameInput]) -> torch.Tensor:
    images = [Image.fromarray(frame) for item in media for frame in item.frames]
    adds = not prompt.startswith(own.tokenizer.bos_token)
    ids: torch.Tensor = own(
        text=[prompt], images=images or None, add_special_tokens=adds, return_tensors="pt"
    )["input_ids"]
    return ids


def check_parity(folder: Path, *pairs: tuple[str, list[FrameInput], Any]) -> str:
    """Builds prompts for a question and its media; `content` is how transformers gets the same; returns the last."""
    own = load(folder)
    ours = prompter(folder, own)
    prompt = ""
    for question, media, content in pairs or [(QUESTION, [clip(1, 2)], TYPED)]:
        prompt = render_by_transformers(own, content)
        built = ours.build(media, question).input_ids
        assert torch.equal(built, encode_by_transformers(own, prompt, media)), prompt
    return prompt


QUESTION = "What is it?"
TYPED = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "What is it?"}]
STRING = "<image><image>\nWhat is it?"
NAMED = [
    {"name": "rag", "template": "{{ 'no' }}"},
    {"name": "default", "template": IN_ORDER},
    {"name": "tool_use", "template": "{{ 'no' }}"},
]

# --- where it is found


def put_in_processor(folder: Path) -> None:
    change(folder, "processor_config.json", chat_template=IN_ORDER)
    write(folder, "{{ 'not this one' }}")


def put_in_folder(folder: Path) -> None:
    write(folder, IN_ORDER)
    others = folder / "additional_chat_templates"
    others.mkdir()
    (others / "rag.jinja").write_text("{{ 'no' }}")


PLACES: dict[str, Callable[[Path], object]] = {
    "chat_template.jinja": lambda folder: write(folder, IN_ORDER),
    "chat_template.json": lambda folder: (folder / "chat_template.json").write_text(
        json.dumps({"chat_template": IN_ORDER})
    ),
    "processor_config.json": put_in_processor,
    "additional_chat_templates": put_in_folder,
    "tokenizer_config.json": lambda folder: change(
        folder, "tokenizer_config.json", chat_template=IN_ORDER
    ),
    "named templates": lambda folder: change(folder, "tokenizer_config.json", chat_template=NAMED),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_template_is_found_wherever_transformers_keeps_it(place: str, folder: Path) -> None:
    PLACES[place](folder)
    assert check_parity(folder) == "[INST] <image>\n<image>\nWhat is it? [/INST]"
    assert not prompter(folder).warnings


def test_a_list_of_named_templates_is_read_in_a_processors_file_too(folder: Path) -> None:
    """transformers reads such a list in a tokenizer's file only, and would take it for a template here."""
    change(folder, "processor_config.json", chat_template=NAMED)
    ours = prompter(folder).build([clip(1, 2)], QUESTION)
    write(folder, IN_ORDER)
    change(folder, "processor_config.json", chat_template=None)
    assert torch.equal(ours.input_ids, prompter(folder).build([clip(1, 2)], QUESTION).input_ids)


def test_named_templates_without_a_default_are_refused_by_name(folder: Path) -> None:
    change(folder, "tokenizer_config.json", chat_template=[NAMED[0], NAMED[2]])
    with pytest.raises(ConfigurationError, match="named rag, tool_use, expected one named default"):
        prompter(folder)


def test_the_plain_format_is_used_without_any_template_only_and_said(folder: Path) -> None:
    own = load(folder)
    plain = prompter(folder, own)
    (warning,) = plain.warnings
    assert warning.code == "no_chat_template"
    prompt = "<image><image>\nUSER: What is it?\nASSISTANT:"
    expected = encode_by_transformers(own, prompt, [clip(1, 2)])
    assert torch.equal(plain.build([clip(1, 2)], "What is it?").input_ids, expected)


# --- templates that take strings

HEADER = "'<|im_start|>' + message['role'] + '\\n\\n'"
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ " + HEADER + " }}"
    "{{ message['content'] | trim }}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] }}"
    "{% endif %}{% endfor %}"
)
VICUNA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {{ message.content }} "
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
DATED = (
    "{% set date = strftime_now('%d %b %Y') if date_string is not defined else date_string %}"
    "{% if tools is not none %}{{ raise_exception('no tools') }}{% endif %}"
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nToday is ' + date + '.\\n' }}"
    "{% endif %}{% for message in messages %}{% if message['content'] is not string %}"
    "{{ raise_exception('text only') }}{% endif %}{{ message['content'] }}{% endfor %}"
)


@pytest.mark.parametrize("template", [LLAMA3, MISTRAL, VICUNA, DATED])
def test_a_template_that_takes_strings_gets_one_with_the_placeholders(
    template: str, folder: Path
) -> None:
    write(folder, template)
    marked = "In %s: what is it, in {'type'}?"
    prompt = check_parity(
        folder,
        ("What?", [], "What?"),
        (marked % "<video>", [clip(1, 2)], marked % "<image><image>"),
        (QUESTION, [clip(1, 2)], STRING),
    )
    assert STRING in prompt
    assert ("Today is " + datetime.now(UTC).strftime("%d %b %Y") in prompt) == (template == DATED)


# --- accidents

TURN = "{% for message in messages %}{{ message['role'] + ': ' }}BODY{% endfor %}"
EACH = "{% for c in message['content'] %}"
END = "{% endfor %}"
ACCIDENTS = {
    "repr": "{{ message['content'] }}",
    "json": "{{ message['content'] | tojson }}",
    "texts as a list": "{{ message['content'] | map(attribute='text') | list }}",
    "the first text only": "{{ message['content'][0]['text'] }}",
    "text items only": EACH + "{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}" + END,
    "escaped": EACH + "{{ c['text'] | e }}" + END,
    "words": EACH
    + "{% if c['type'] == 'text' %}{{ c['text'].split() | join(' ') }}{% endif %}"
    + END,
    "all media as one": "{% if message['content'] | selectattr('type', 'equalto', 'image') | list %}"
    "{{ '<image>' }}{% endif %}"
    + EACH
    + "{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}"
    + END,
    "each medium twice": EACH
    + "{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}<image><image>{% endif %}"
    + END,
}
REFUSED = {"json", "texts as a list", "escaped", "words"}


def write_turn(folder: Path, body: str) -> None:
    write(folder, TURN.replace("BODY", body))


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_no_accident_of_a_template_reaches_the_prompt(accident: str, folder: Path) -> None:
    write_turn(folder, ACCIDENTS[accident])
    if accident in REFUSED:
        with pytest.raises(ConfigurationError, match=r"chat template (drops|fails)"):
            prompter(folder)
        return
    content: Any = STRING if accident == "repr" else [{"type": "text", "text": STRING}]
    assert check_parity(folder, (QUESTION, [clip(1, 2)], content)) == f"user: {STRING}"


def test_a_template_with_media_of_its_own_is_refused(folder: Path) -> None:
    write_turn(folder, "{{ '<image>\\n' }}" + ACCIDENTS["text items only"])
    with pytest.raises(ConfigurationError, match="adds media of its own"):
        prompter(folder)


def test_a_template_that_takes_tokens_out_of_a_text_writes_media_first_only(folder: Path) -> None:
    cleaned = "{{ c['text'] | replace('<image>', '') }}"
    media = "{% if c['type'] == 'image' %}<image>{% endif %}"
    text = "{% if c['type'] == 'text' %}" + cleaned + "{% endif %}"
    write_turn(folder, EACH + media + END + EACH + text + END)
    assert check_parity(folder) == "user: <image><image>What is it?"
    with pytest.raises(UnsupportedInput, match="without marks"):
        prompter(folder).build([clip(1, 1)], "In <video>: what?")


# --- what begins and ends a prompt


@pytest.mark.parametrize("begin", ["", "{{ bos_token }}", "\n{{ bos_token }}"])
def test_the_begin_token_stands_once_where_transformers_puts_it(begin: str, folder: Path) -> None:
    write(folder, begin + IN_ORDER)
    check_parity(folder)


def test_a_system_prompt_and_a_missing_generation_prompt_are_the_templates_own(
    folder: Path,
) -> None:
    system = (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are kind. "
        '{"type": "text"}' + "<|im_end|>\n' }}{% endif %}"
    )
    write(folder, system + IN_ORDER)
    prompt = check_parity(folder)
    assert prompt.startswith("<|im_start|>system\nYou are kind.")


def test_a_processor_of_transformers_alone_gives_the_same_tokens_and_pixels(folder: Path) -> None:
    """The reference of the other tests is our loader's processor; this one is built by hand."""
    write(folder, "{{ bos_token }}" + IN_ORDER)
    ours = prompter(folder)
    sized = SiglipImageProcessorPil(
        size={"height": 42, "width": 42}, image_mean=HALF, image_std=HALF
    )
    theirs = LlavaProcessor(
        sized,
        ours._processor.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=(folder / "chat_template.jinja").read_text(),
    )
    frame = picture(4).frames[0]
    content = [{"type": "image", "image": Image.fromarray(frame)}, TYPED[2]]
    expected = theirs.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    built = ours.build([picture(4)], "What is it?")
    assert torch.equal(built.input_ids, expected["input_ids"])
    assert torch.equal(built.images["pixel_values"], expected["pixel_values"])
