"""The doorbell: the Celery messages that tell workers of waiting jobs."""

from videoqa.broker.bells import ring_many
from videoqa.broker.celery_app import (
    TASK,
    make_celery,
    ring,
    task_args,
    task_id,
    translate_broker_errors,
)
from videoqa.broker.doorbell import Doorbell

__all__ = [
    "TASK",
    "Doorbell",
    "make_celery",
    "ring",
    "ring_many",
    "task_args",
    "task_id",
    "translate_broker_errors",
]
