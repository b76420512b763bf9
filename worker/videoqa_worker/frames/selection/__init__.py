"""Frame selection: the instants that a sampling method names, and the bytes that they need."""
