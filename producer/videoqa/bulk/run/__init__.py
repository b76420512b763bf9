"""The run: which rows are asked, how many at a time, and what becomes of their jobs."""
