"""The model: loading, processor, vision tower, attention."""
