"""The doorbell: the only folder that knows Celery's side of a producer."""

from videoqa.broker.bells import ring_many
from videoqa.broker.celery_app import make_celery, ring

__all__ = [
    "make_celery",
    "ring",
    "ring_many",
]
