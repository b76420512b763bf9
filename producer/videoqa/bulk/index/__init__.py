"""Facts about each row, on disk: of this run, and of the files that OUTPUT holds."""
