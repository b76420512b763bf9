"""Batches: OpenAI's Batch API. Files of chats become bulk jobs, which any gateway process moves on."""
