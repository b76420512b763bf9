"""Backends: the places where a client's jobs are, behind one interface."""
