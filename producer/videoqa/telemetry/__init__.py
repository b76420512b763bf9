"""Telemetry: the log lines, metrics and traces of workers, gateways and clients.

Nothing here is configured by an import: only entry points call `configure_logs` and its siblings, so that a client in
somebody's own program logs through `logging` and does nothing else.
"""
