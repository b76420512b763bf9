"""API keys: their roles, scopes and limits, and the log of what operators change."""
