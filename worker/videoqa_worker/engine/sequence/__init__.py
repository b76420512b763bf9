"""One sequence: prefill, sampling, logits processors, detokenizer."""
