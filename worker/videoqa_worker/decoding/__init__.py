"""Decoding in processes of its own, so that a hostile or broken video costs one job.

`decoders.Decoders` is the worker's half. Nothing is imported here: the other half is started
as a module of this package, and must not carry the first one with it.
"""
