"""The gateway: HTTP for every language, before the Redis of a fleet. It keeps no state of its own."""

from videoqa.gateway.app import make_app
from videoqa.gateway.server import GatewayServer
from videoqa.gateway.settings import GatewaySettings

__all__ = ["GatewayServer", "GatewaySettings", "make_app"]
