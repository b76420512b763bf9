"""The spool: the folder where fetched files lie until they are decoded, and its quota."""
