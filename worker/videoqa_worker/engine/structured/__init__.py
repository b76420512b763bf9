"""Structured answers: decoding that writes only what the form of an answer allows.

The library is llguidance: it needs no torch of its own, has limits on what a grammar may cost, bounds white space and
escapes in JSON, and leaves Python's lock while it works.
"""
