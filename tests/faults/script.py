"""The command line of the fault scripts: arguments in, one line or one object out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from faults.tally import Tally

__all__ = ["main"]


def main(run: Callable[[int, int], Tally], *, jobs: int, about: str | None) -> None:
    """Runs a row; exits with 1 if an invariant does not hold."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=jobs)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    tally = run(args.jobs, args.seed)
    found = tally.as_json() | {"seed": args.seed}
    if args.json:
        print(json.dumps(found))
    else:
        print("  ".join(f"{name} {value}" for name, value in found.items()))
    sys.exit(0 if tally.sound else 1)
