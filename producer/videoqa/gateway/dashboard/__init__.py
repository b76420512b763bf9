"""The dashboard: HTML pages of the gateway, rendered by the server, and kept up to date by htmx."""
