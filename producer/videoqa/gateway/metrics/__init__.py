"""Metrics of a gateway: its own calls, and the fleet's queues, which each gateway reads alike from Redis."""
