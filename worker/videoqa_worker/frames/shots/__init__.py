"""Finds where a film cuts, without decoding all of it."""
