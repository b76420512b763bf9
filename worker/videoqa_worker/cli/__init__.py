"""Command line of videoqa-worker: worker, up, demo and frames, its checks for `doctor`, and dry runs."""
