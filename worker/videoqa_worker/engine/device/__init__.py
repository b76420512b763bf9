"""The device: its memory and CUDA graphs."""
