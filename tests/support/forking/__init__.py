"""Workers that are forked from one process with all imports done."""
