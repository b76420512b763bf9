"""The KV cache: slots, their allocation, and what is kept for later prompts."""
