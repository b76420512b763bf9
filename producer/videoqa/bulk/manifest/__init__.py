"""The rows that are asked: sources, files of rows, names, and the root of an archive."""
