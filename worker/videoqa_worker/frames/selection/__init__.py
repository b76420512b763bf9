"""Frame selection: the instants of a sampling method, and the bytes that they need."""
