"""Entry point of the `videoqa` command, outside of the package, whose import takes half a second.

Ctrl-C during the import ends the command as quietly as later.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line; the console script calls this."""
    try:
        from videoqa.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
