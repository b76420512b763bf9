"""The fault matrix: one program a fault, each with its counts."""
