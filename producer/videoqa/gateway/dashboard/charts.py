"""Charts as SVG that the server draws, of attributes and classes only: the pages' policy allows no inline style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from markupsafe import Markup, escape

from videoqa.gateway.dashboard.formats import format_count

__all__ = ["draw_bar", "draw_columns", "draw_spark", "draw_stack"]

Series = tuple[str, str, Sequence[float]]
"""Name, tone and values."""
_GAP = 0.2
"""Share of a column's width that stays free."""


def draw_bar(value: float, most: float, label: str, tone: str = "busy") -> Markup:
    """Draws a bar of `value` out of `most`; the label is read out."""
    share = 0.0 if most <= 0 else min(1.0, max(0.0, value / most))
    return _wrap(
        "bar",
        label,
        (100, 8),
        f'<rect class="track" width="100" height="8" rx="0"/><rect class="tone-{escape(tone)}" '
        f'width="{share * 100:.2f}" height="8" rx="0"/>',
    )


def draw_stack(parts: Sequence[tuple[str, float]], label: str) -> Markup:
    """Draws a bar of parts, as the seconds of stages; each has the colour of its place in the sequence."""
    whole = sum(value for _, value in parts) or 1
    left, shapes = 0.0, ""
    for n, (name, value) in enumerate(parts):
        width = 100 * value / whole
        shapes += (
            f'<rect class="part-{n}" x="{left:.2f}" width="{width:.2f}" height="8">'
            f"<title>{escape(name)}</title></rect>"
        )
        left += width
    return _wrap("stack", label, (100, 8), shapes)


def draw_spark(values: Sequence[float], label: str, tone: str = "busy") -> Markup:
    """Draws a line of values, its area filled."""
    most = max([*values, 0]) or 1
    step = 100 / max(1, len(values) - 1)
    points = [f"{n * step:.1f},{23 - 22 * value / most:.1f}" for n, value in enumerate(values)]
    if not points:
        return Markup("")
    line = " ".join(points)
    return _wrap(
        "spark",
        label,
        (100, 24),
        f'<polygon class="area tone-{escape(tone)}" points="0,24 {line} 100,24"/>'
        f'<polyline class="line tone-{escape(tone)}" points="{line}"/>',
    )


def draw_columns(
    series: Sequence[float] | Sequence[Series],
    label: str,
    names: Sequence[str] | None = None,
    tone: str = "busy",
) -> Markup:
    """Draws columns, those of several series on top of each other.

    Arguments:
        series: values, or (name, tone, values) of each series, the lowest first.
        names: words for each column, shown on hover.
    """
    rows = [one for one in series if isinstance(one, tuple)]
    if not rows:
        rows = [("", tone, cast("Sequence[float]", series))]
    length = max((len(values) for _, _, values in rows), default=0)
    totals = [sum(values[n] for _, _, values in rows if n < len(values)) for n in range(length)]
    most = max([*totals, 0]) or 1
    shapes = []
    for n in range(length):
        top, rects, words = 100.0, "", []
        for name, colour, values in rows:
            value = values[n] if n < len(values) else 0
            if value > 0:
                height = max(1.0, 100 * value / most)
                top -= height
                rects += (
                    f'<rect class="tone-{escape(colour)}" x="{n + _GAP / 2:.2f}" y="{top:.1f}" '
                    f'width="{1 - _GAP:.2f}" height="{height:.1f}"/>'
                )
            words.append(f"{format_count(value)} {name}".strip())
        title = ": ".join([*([names[n]] if names else []), ", ".join(words)])
        shapes.append(
            f'<g class="column"><title>{escape(title)}</title>'
            f'<rect class="hit" x="{n}" y="0" width="1" height="100"/>{rects}</g>'
        )
    return _wrap("columns", label, (max(1, length), 100), "".join(shapes))


def _wrap(kind: str, label: str, size: tuple[int, int], shapes: str) -> Markup:
    return Markup(  # noqa: S704 numbers and escaped words only
        f'<svg class="chart-{kind}" viewBox="0 0 {size[0]} {size[1]}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{shapes}</svg>'
    )
