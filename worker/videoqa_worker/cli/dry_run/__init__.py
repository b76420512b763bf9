"""What jobs would take, by the headers of their videos: `videoqa caption --dry-run`.

Loaded by the entry point group `videoqa.probe`; nothing is decoded and no model is run.
"""

from videoqa_worker.cli.dry_run.probe import HeaderProbe, probe

__all__ = ["HeaderProbe", "probe"]
