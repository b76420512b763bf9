"""Rows of the fault matrix in which workers, their engines or their decoders fail."""
