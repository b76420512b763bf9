"""The doorbell: the Celery messages that tell workers of waiting jobs."""

from videoqa.broker.celery_app import (
    TASK,
    check_broker,
    make_celery,
    ring,
    translate_broker_errors,
)
from videoqa.broker.doorbell import Doorbell

__all__ = [
    "TASK",
    "Doorbell",
    "check_broker",
    "make_celery",
    "ring",
    "translate_broker_errors",
]
