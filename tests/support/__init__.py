"""Fixtures and helpers by subject: real servers, videos, models, stacks."""
