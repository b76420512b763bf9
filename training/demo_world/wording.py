"""Wordings of questions: templates with synonyms, fillers and careless punctuation.

Knows nothing of scenes: a noun such as "red {thing}" comes in as an argument.
"""

from __future__ import annotations

import random

__all__ = ["TEMPLATES", "ask", "vocabulary"]

_SYNONYMS = {
    "{it}": ("it", "it", "the {noun}"),
    "{thing}": ("shape", "object", "thing"),
    "{things}": ("shapes", "objects", "things"),
    "{color}": ("color", "colour"),
    "{colors}": ("colors", "colours", "color", "colour"),
    "{video}": ("video", "clip"),
    "{videos}": ("videos", "clips"),
    "{is}": ("is", "'s"),
    "{see}": ("do you see", "can you see", "is there", "is shown", "appears"),
}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "count": (
        "how many {things} are there",
        "how many {things} do you see",
        "how many {things} can you see",
        "how many {things} appear",
        "how many {things}",
        "count the {things}",
        "what is the number of {things}",
    ),
    "color": (
        "what {color} is {it}",
        "which {color} is {it}",
        "what {color} is the {noun}",
        "which {color} is the {noun}",
        "what {is} the {color} of the {noun}",
        "what {is} its {color}",
        "what {color} does the {noun} have",
        "name the {color} of the {noun}",
        "what {color}",
        "which {color}",
    ),
    "colors": (
        "what {colors} are there",
        "which {colors} are there",
        "what {colors} do you see",
        "which {colors} can you see",
        "what {colors} are the {things}",
        "which {colors} are they",
        "name the {colors}",
    ),
    "shape": (
        "what shape",
        "what shape is {it}",
        "which shape is {it}",
        "what shape is the {noun}",
        "which shape is the {noun}",
        "what {is} the shape of the {noun}",
        "what kind of shape is the {noun}",
        "what shape does the {noun} have",
        "what {is} its shape",
    ),
    "direction": (
        "which direction does {it} move",
        "what direction does the {noun} move",
        "which direction is {it} moving",
        "in which direction does {it} move",
        "in what direction is the {noun} moving",
        "what {is} the direction of the {noun}",
        "where {is} it going",
        "where is {it} going",
        "which direction",
        "what direction",
        "where does {it} go",
        "where is {it} moving",
        "where is {it} moving to",
        "where is {it} heading",
        "which way does {it} move",
        "which way is {it} going",
        "how does {it} move",
        "how is the {noun} moving",
    ),
    "objects": (
        "what {see}",
        "what is in the {video}",
        "what's in this {video}",
        "what is there",
        "what is this",
        "what is it",
        "what {things} do you see",
        "which {things} are there",
        "which {thing} do you see",
        "what {thing} is in the {video}",
        "what does the {video} show",
        "what do we see",
    ),
    "moving": (
        "what is moving",
        "what {thing} is moving",
        "which {thing} is moving",
        "what's moving",
        "what moves",
    ),
    "describe": (
        "describe the {video}",
        "describe this {video}",
        "describe it",
        "describe what happens",
        "describe what you see",
        "what happens",
        "what happens in the {video}",
        "what happens in this {video}",
        "what is happening",
        "what is going on",
        "what's happening in the {video}",
        "summarize the {video}",
        "what does the {noun} do",
    ),
    "start": (
        "where does {it} start",
        "where does the {noun} begin",
        "where is {it} at the start",
        "where is {it} at first",
        "where is the {noun} at the beginning",
        "on which side does {it} start",
        "where does {it} come from",
    ),
    "end": (
        "where does {it} end",
        "where does the {noun} stop",
        "where is {it} at the end",
        "where does {it} end up",
        "on which side does {it} end",
        "where does the {noun} finish",
    ),
    "first": (
        "what appears first",
        "which {thing} appears first",
        "what comes first",
        "what {is} the first {thing}",
        "which {thing} is first",
        "what do you see first",
        "what is shown first",
        "what {thing} is there at the start",
    ),
    "last": (
        "what appears last",
        "which {thing} appears last",
        "what comes last",
        "what {is} the last {thing}",
        "which {thing} is last",
        "what do you see last",
        "what appears second",
        "what comes next",
        "what {thing} is there at the end",
    ),
    "exists": (
        "is there a {noun}",
        "do you see a {noun}",
        "can you see a {noun}",
        "does a {noun} appear",
        "is a {noun} shown",
    ),
    "yes_no": ("is it {which}", "is it {which}", "is the {noun} {which}", "is this {which}"),
    "same_color": (
        "do both {videos} show the same {color}",
        "is the {color} the same",
        "are they the same {color}",
        "are the {things} the same {color}",
        "do the {things} have the same {color}",
        "is it the same {color} in both {videos}",
        "compare the {colors}",
    ),
    "same_shape": (
        "do both {videos} show the same shape",
        "is the shape the same",
        "are they the same shape",
        "do the objects have the same shape",
        "is it the same shape in both {videos}",
        "compare the shapes",
    ),
    "same_direction": (
        "do both {things} move in the same direction",
        "is the direction the same",
        "do they move in the same direction",
        "do they move the same way",
        "do both {videos} show the same direction",
        "compare the directions",
        "do the {things} move in the same direction",
    ),
    "which_video": (
        "describe the {which} {video}",
        "what happens in the {which} {video}",
        "what is in the {which} {video}",
        "what does the {which} {video} show",
        "what is happening in the {which} {video}",
    ),
    "compare": (
        "compare the {videos}",
        "compare the two {videos}",
        "compare both {videos}",
        "compare them",
        "what is the difference between the {videos}",
        "what is the difference",
        "what are the differences between the two {videos}",
        "how do the {videos} differ",
        "how are the {videos} different",
        "describe both {videos}",
        "describe the {videos}",
        "describe the two {videos}",
        "what happens in the {videos}",
        "what happens in these two {videos}",
        "what do you see in the {videos}",
    ),
}

_OPENINGS = (
    "please ",
    "can you tell me ",
    "tell me ",
    "hi , ",
    "hello , ",
    "now ",
    "look at the {video} . ",
)
_CLOSINGS = (" in this {video}", " in the {video}", " here", " please", " , please", " in total")
_ENDINGS = ("?",) * 6 + ("",) * 4 + (".", " ?")
#: Kinds that ask about two videos, or already say "in the video", take no "in this video" after
#: them.
_NO_CLOSING = frozenset({"which_video", "compare", "same_color", "same_shape", "same_direction"})


def ask(
    kind: str, rng: random.Random, *, noun: str = "{thing}", name: str = "", which: str = "first"
) -> str:
    """Returns a wording of a question of this kind, as a person might type it.

    Args:
        kind: one of `TEMPLATES`.
        rng: decides the wording.
        noun: what the shape may be called.
        name: what the shape must be called, where a plain "it" would not say which.
        which: fills `{which}`: "first" or "second" of two videos, or what is asked to be so.
    """
    templates = TEMPLATES[kind]
    if name:
        templates = tuple(text.replace("{it}", "the {noun}") for text in templates)
        templates = tuple(text for text in templates if "{noun}" in text)
    text = _add_fillers(rng.choice(templates), kind, rng).replace("{which}", which)
    text = _fill_slots(text, rng, name or noun) + rng.choice(_ENDINGS)
    return text[0].upper() + text[1:] if rng.random() < 0.5 else text


def _add_fillers(text: str, kind: str, rng: random.Random) -> str:
    """Adds "please" before the question, or "in this video" after it, now and then."""
    if rng.random() < 0.15:
        text = rng.choice(_OPENINGS) + text
    if rng.random() < 0.2 and kind not in _NO_CLOSING and "{video}" not in text:
        text += rng.choice(_CLOSINGS)
    return text


def _fill_slots(text: str, rng: random.Random, noun: str) -> str:
    """Fills every slot; a synonym may contain the noun, and the noun another slot."""
    for slot in (*_SYNONYMS, "{noun}", "{thing}"):
        while slot in text:
            text = text.replace(slot, noun if slot == "{noun}" else rng.choice(_SYNONYMS[slot]), 1)
    return text.replace(" 's", "'s")


def vocabulary() -> set[str]:
    """Returns every word that `ask` may use, in lower case, without punctuation."""
    texts = [text for texts in TEMPLATES.values() for text in texts]
    texts += [*_OPENINGS, *_CLOSINGS, *(word for words in _SYNONYMS.values() for word in words)]
    words = " ".join(texts).replace("'", " ").split()
    return {word for word in words if word.isalpha()}
