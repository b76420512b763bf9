"""h11's patterns, without those that take quadratic time. Needs h11, which httpcore2 and uvicorn bring."""

from __future__ import annotations

import re

import h11._readers

__all__ = ["make_parser_linear"]


def make_parser_linear() -> None:
    """Makes the blanks in h11's patterns possessive, for all clients and servers of this process that use it.

    As h11 0.16 writes them, 64 kB of blanks that a NUL ends, in a header, a trailer or a chunk's extension,
    hold the interpreter for 8 seconds: each blank may belong to either side of the value.
    """
    for name, pattern in vars(h11._readers).copy().items():
        if isinstance(pattern, re.Pattern):
            linear = re.sub(rb"(?<=\[ \\t\]\*)(?!\+)", b"+", pattern.pattern)
            linear = re.sub(rb";\.\*(?!\+)", rb";[^\\r\\n]*+", linear)
            setattr(h11._readers, name, re.compile(linear))
