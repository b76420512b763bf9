"""Entry point of the `videoqa` command, outside of the package, whose import takes half a second.

So Ctrl-C during that import is as quiet as later.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command; called by the console script."""
    try:
        from videoqa.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
