"""OpenAI's protocol: chat completions as interactive jobs, for OpenAI's own clients."""
