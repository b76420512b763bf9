"""The `videoqa` command: one module for each group of commands, and what they share."""
