"""Decoding in child processes, so that a hostile or broken video costs one job at most.

`decoders.Decoders` is the worker's half, `child` the half that runs in the child process. This
package has no face on purpose: the child imports it, and must not import the worker's half.
"""
