"""The commands that videoqa-worker adds to `videoqa`: worker, up, demo, frames, its checks and dry runs."""
