"""The demo: a small LLaVA that knows coloured moving shapes, and a tour with four clips of them.

`model/` is the checkpoint and `clips/` are the videos of the tour; `training/` in the repository made both.
"""
