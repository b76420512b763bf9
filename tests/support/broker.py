"""The broker's connections of Redis, looked at without a server."""

from __future__ import annotations

from typing import Any

from kombu.transport.redis import Channel

from videoqa import Settings
from videoqa.broker import make_celery

__all__ = ["make_channel"]


def make_channel(settings: Settings) -> Any:
    """Makes a channel with the options of these settings; kombu's own constructor would connect."""
    connection = make_celery(settings).producer_pool.connections.new()
    channel = object.__new__(connection.get_transport_cls().Channel)
    channel.connection = connection.transport
    for name in Channel.from_transport_options:
        if name in connection.transport_options:
            setattr(channel, name, connection.transport_options[name])
    return channel
