"""The prefix cache: what prompts about the same media share is computed once.

The features of pictures, and the KV of a prompt up to its last picture, serve the next question about
the same pictures. Knows nothing of prefill or of running sequences.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from videoqa_worker.engine.device.cuda_graphs import CudaGraphs
from videoqa_worker.engine.failures import classify
from videoqa_worker.engine.generation import PendingRequest
from videoqa_worker.engine.kvcache.lru import LruCache
from videoqa_worker.engine.kvcache.slot_cache import SlotCache
from videoqa_worker.engine.model import vision
from videoqa_worker.prompt import ModelInputs
from videoqa_worker.settings import EngineConfig

__all__ = ["PrefixCache", "digest_prefix"]


class PrefixCache:
    """Features and prefix KV of one model; used by the engine's thread."""

    def __init__(
        self, model: Any, graphs: CudaGraphs, slots: SlotCache, config: EngineConfig
    ) -> None:
        self._model, self._graphs, self._slots = model, graphs, slots
        self.features: LruCache[vision.FlatFeatures] = LruCache(config.feature_cache_bytes or 0)
        self.prefixes: LruCache[list[torch.Tensor]] = LruCache(config.prefix_cache_bytes or 0)

    @property
    def is_enabled(self) -> bool:
        """False if the settings leave no bytes for either cache."""
        return self.features.accepts(1) or self.prefixes.accepts(1)

    def clear(self) -> bool:
        """Frees both caches and the memory of CUDA graphs; returns False if both caches were empty."""
        self._graphs.clear()
        return self.prefixes.clear() | self.features.clear()

    def find_prefix(self, pending: PendingRequest) -> tuple[bytes, int]:
        """Returns the digest and length of a prompt up to its last picture.

        (b"", 0) without pictures, or if nothing compares digests.
        """
        if pending.prefix is None:
            inputs, length, key = pending.request.inputs, 0, b""
            placeholders = vision.find_placeholders(self._model, inputs)
            if placeholders.any() and pending.media_digest:
                # The last position is always computed: its logits give the first token.
                length = min(int(placeholders.nonzero()[-1]) + 1, inputs.length - 1)
                key = digest_prefix(inputs, pending.media_digest, length)
            pending.prefix = key, length
        return pending.prefix

    def restore(self, key: bytes, slot: int) -> bool:
        """Writes a cached prefix to the beginning of a slot; returns False if it is not cached."""
        saved = self.prefixes.get(key)
        if saved is None:
            return False
        self._slots.restore(slot, saved)
        return True

    def save(self, key: bytes, length: int, slot: int) -> None:
        """Caches the first `length` positions of a slot, where memory allows for it."""
        size = length * self._slots.token_bytes
        if self.prefixes.accepts(size):
            saved = self._copy(slot, length)
            if saved is not None:
                self.prefixes.put(key, saved, size)

    def _copy(self, slot: int, length: int) -> list[torch.Tensor] | None:
        """Returns None if the device is out of memory: the answer does not depend on the copy."""
        try:
            return self._slots.save(slot, length)
        except Exception as error:
            if not classify(error).is_memory:
                raise
        return None

    def compute_features(self, pending: PendingRequest) -> vision.FlatFeatures:
        """Returns the features of a request's pictures, from the cache or the model's encoder."""
        key = pending.media_digest
        features = self.features.get(key) if key else None
        if features is None:
            encoded = vision.encode(self._model, pending.request.inputs, self._graphs)
            features = vision.flatten_features(encoded)
            if key:
                size = sum(part.numel() * part.element_size() for part in features.values())
                self.features.put(key, features, size)
        return features


def digest_prefix(inputs: ModelInputs, media_digest: bytes, length: int) -> bytes:
    """Returns a digest of the first `length` tokens of a prompt and of its pictures."""
    digest = hashlib.blake2b(media_digest, digest_size=20)
    for tokens in (inputs.input_ids, *inputs.token_inputs.values()):
        numbers: Any = tokens[0, :length].contiguous().numpy()
        digest.update(memoryview(numbers).cast("B"))
    return digest.digest()
