"""vLLM as the engine of a worker: its asynchronous engine in the worker's process, without HTTP or picture files.

`VllmEngine` offers what `Engine` does. The other modules turn ours into vLLM's: settings into the arguments of
its engine, questions into its prompts and sampling parameters, and its failures into our errors. vLLM is imported
by `start` alone, so importing this package needs no vLLM.
"""

from videoqa_worker.engine.vllm.engine import VllmEngine

__all__ = ["VllmEngine"]
