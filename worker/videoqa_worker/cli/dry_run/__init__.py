"""Dry runs: the cost of jobs from the headers of their videos, for `videoqa caption --dry-run`.

Loaded by the entry point group `videoqa.probe`; decodes no frame and runs no model.
"""

from videoqa_worker.cli.dry_run.probe import HeaderProbe, probe

__all__ = ["HeaderProbe", "probe"]
