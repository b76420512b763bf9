"""A video's container: its format, its index, its packets and their times."""
