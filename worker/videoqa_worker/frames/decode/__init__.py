"""Decoding from keyframe to target: packets in, pictures in presentation order out."""
