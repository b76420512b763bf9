"""Decoding from keyframe to target: takes packets, gives pictures in presentation order."""
