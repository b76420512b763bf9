"""The KV cache: slots, their allocation, and the prefix cache."""
