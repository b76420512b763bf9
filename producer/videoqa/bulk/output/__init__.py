"""OUTPUT: results, failures, lines, tables and subtitles, and the outcome of each row."""
