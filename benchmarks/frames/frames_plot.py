"""Draws what `frames.py --json` found: CPU time relative to the guide, over the video's length.

    python benchmarks/frames/frames.py --json > found.json
    python benchmarks/frames/frames_plot.py found.json benchmarks/frames/frames.svg

Needs matplotlib. One panel a number of frames, H.264 with B pictures unless `--kind` says otherwise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

STYLES = {
    "videoqa": ("#c2410c", "o", 2.8),
    "videoqa-pool": ("#ea9a6a", "o", 1.2),
    "torchcodec": ("#1d4ed8", "s", 1.6),
    "decord2": ("#7e22ce", "^", 1.6),
    "opencv-seek": ("#15803d", "D", 1.6),
    "ffmpeg-seek": ("#0f766e", "v", 1.6),
    "opencv-grab": ("#86a98f", "D", 1.2),
    "ffmpeg-select": ("#6fa8a3", "v", 1.2),
    "told": ("#111827", "_", 1.0),
    "guide-pyav": ("#9ca3af", ".", 1.2),
    "guide": ("#4b5563", None, 1.2),
}
NAMES = {10: "10 s\n1080p", 60: "60 s\n1080p", 600: "10 min\n720p", 3600: "1 h\n720p"}


def draw(found: dict[str, Any], kind: str, path: Path) -> None:
    rows = [row for row in found["rows"] if row["kind"] == kind and row["ratio"]]
    counts = sorted({row["frames"] for row in rows})
    figure, panels = pyplot.subplots(
        1, len(counts), figsize=(5.6 * len(counts), 4.8), sharey=True, squeeze=False
    )
    for panel, count in zip(panels[0], counts, strict=True):
        _panel(panel, [row for row in rows if row["frames"] == count])
        panel.set_title(f"{count} frames")
    panels[0][0].set_ylabel("times less CPU time than the guide")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.suptitle(f"Sampling frames, {kind}, {found['machine']}", fontsize=11)
    figure.set_layout_engine("constrained")
    figure.savefig(path)


def _panel(panel: Any, rows: list[dict[str, Any]]) -> None:
    for sampler, (colour, marker, width) in STYLES.items():
        points = sorted((row["seconds"], row["ratio"]) for row in rows if row["sampler"] == sampler)
        if points:
            panel.plot(
                *zip(*points, strict=True), color=colour, marker=marker, lw=width, label=sampler
            )
            wrong = [
                (row["seconds"], row["ratio"])
                for row in rows
                if row["sampler"] == sampler and row["right"] < row["frames"]
            ]
            if wrong:
                panel.plot(*zip(*wrong, strict=True), "x", color="black", ms=11, mew=1.6)
        if sampler == "videoqa":
            for seconds, ratio in points:
                panel.annotate(
                    f"{ratio:.3g}",
                    (seconds, ratio),
                    xytext=(-4, 7),
                    textcoords="offset points",
                    ha="right",
                    color=colour,
                    weight="bold",
                )
    ticks = sorted({row["seconds"] for row in rows})
    panel.set(xscale="log", yscale="log", xticks=ticks)
    panel.margins(y=0.09)
    panel.yaxis.set_major_formatter("{x:g}x")
    panel.set_xticklabels([NAMES.get(tick, f"{tick} s") for tick in ticks])
    panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    panel.grid(visible=True, axis="y", alpha=0.3)
    panel.set_xlabel("video (a cross: pictures were wrong)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("found", type=Path, help="the object that frames.py --json printed")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--kind", default="h264")
    args = parser.parse_args()
    draw(json.loads(args.found.read_text()), args.kind, args.picture)


if __name__ == "__main__":
    main()
