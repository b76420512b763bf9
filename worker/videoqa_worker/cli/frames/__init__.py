"""`videoqa frames`: shows a person the frames that a model would see.

Uses the worker's own sources and decoders, and neither Redis nor a model.
"""
