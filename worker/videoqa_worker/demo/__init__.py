"""The demo: a small LLaVA that knows coloured moving shapes, and clips for it to watch.

`model/` is the checkpoint, `scenes` draws what happens in a clip, `clips` writes it as a video.
"""
