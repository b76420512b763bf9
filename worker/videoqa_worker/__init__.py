"""videoqa-worker: holds a LLaVA model, samples frames and answers the jobs of videoqa."""

__version__ = "0.1.0"
