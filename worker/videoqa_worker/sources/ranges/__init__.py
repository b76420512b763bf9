"""Ranged reads of a remote file: plans ranges and fetches them on threads, within limits."""
