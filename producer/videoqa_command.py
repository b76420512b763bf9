"""Where the `videoqa` command begins: outside of the package, whose import takes half a second.

Ctrl-C ends that as quietly as all that follows.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The console script."""
    try:
        from videoqa.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
