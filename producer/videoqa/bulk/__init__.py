"""Bulk: an archive of videos through the queue, from a manifest to lines of results.

    with Manifest(["videos/"], defaults={"questions": ["What happens?"]}, store=store) as manifest:
        run_manifest(client, manifest, OutputDir("captions/", store), Options())

Each row of the manifest is one ordinary job, whose worker writes the result object below OUTPUT
itself. So OUTPUT alone tells which rows are done, and the same call continues an interrupted run,
from any host. Rows of other runs into the same OUTPUT stay. Nothing here knows models, frames, or how
Redis holds a job.
"""

from videoqa.bulk.manifest.manifest import Manifest, Row
from videoqa.bulk.output.answers import COLUMNS as ANSWER_COLUMNS
from videoqa.bulk.output.output_dir import OutputDir
from videoqa.bulk.output.records import ArchiveRecord, ResultLine, RowFailure
from videoqa.bulk.output.subtitle_files import Subtitles
from videoqa.bulk.report.page import ReportCounts, check_report, write_report
from videoqa.bulk.run.announcer import REDIS_EVERY_S, RunAnnouncer, RunProgress
from videoqa.bulk.run.estimate import (
    PROBES,
    Estimate,
    Probe,
    ProbeResult,
    RunPlan,
    estimate_manifest,
    installed_probe,
)
from videoqa.bulk.run.fleet_limit import FleetLimit
from videoqa.bulk.run.job_loop import JobLoop
from videoqa.bulk.run.progress import ProgressReporter, RowCounts
from videoqa.bulk.run.row_plan import parse_where
from videoqa.bulk.run.run import Options, run_manifest

__all__ = [
    "ANSWER_COLUMNS",
    "PROBES",
    "REDIS_EVERY_S",
    "ArchiveRecord",
    "Estimate",
    "FleetLimit",
    "JobLoop",
    "Manifest",
    "Options",
    "OutputDir",
    "Probe",
    "ProbeResult",
    "ProgressReporter",
    "ReportCounts",
    "ResultLine",
    "Row",
    "RowCounts",
    "RowFailure",
    "RunAnnouncer",
    "RunPlan",
    "RunProgress",
    "Subtitles",
    "check_report",
    "estimate_manifest",
    "installed_probe",
    "parse_where",
    "run_manifest",
    "write_report",
]
