"""Rows of the fault matrix in which inputs or stores of results fail."""
