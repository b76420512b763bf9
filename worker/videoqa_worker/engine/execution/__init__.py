"""Execution: continuous batching over slots, and padded `generate` for other models."""
