"""`videoqa frames`: a person looks at what the model would see.

Uses the worker's own sources and decoders, and neither Redis nor a model.
"""
