"""Bulk: an archive of videos through the queue, from a manifest to lines of results.

    with Manifest(["videos/"], defaults={"questions": ["What happens?"]}, store=store) as manifest:
        run(client, manifest, Place("captions/", store), Options())

Each row of the manifest is one ordinary job, whose worker writes the result object below OUTPUT
itself. So OUTPUT alone says what is done, and the same call goes on where another one ended,
wherever that one ran. Nothing here knows models, frames, or how Redis holds a job.
"""

from videoqa.bulk.estimate import Estimate, Probe, Probed, estimate, installed_probe
from videoqa.bulk.manifest import Manifest, Row
from videoqa.bulk.options import Options
from videoqa.bulk.place import Place
from videoqa.bulk.progress import Tally, Watcher
from videoqa.bulk.run import run

__all__ = [
    "Estimate",
    "Manifest",
    "Options",
    "Place",
    "Probe",
    "Probed",
    "Row",
    "Tally",
    "Watcher",
    "estimate",
    "installed_probe",
    "run",
]
