"""Scheduling: the request queue, who joins the batch, and recovery after faults."""
