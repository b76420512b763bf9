"""Ranged reads of a remote file: which ranges, one request each, on threads, within limits."""
