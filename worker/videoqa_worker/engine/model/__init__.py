"""The model: loading, processor, vision tower, attention."""

from videoqa_worker.engine.model.torchvision import make_importable

make_importable()  # before any module here has transformers import it
