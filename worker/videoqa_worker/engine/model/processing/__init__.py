"""The processor of a checkpoint: tokenizer, image and video processor."""
