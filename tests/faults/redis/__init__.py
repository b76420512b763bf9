"""Rows of the fault matrix in which Redis or its clients misbehave."""
