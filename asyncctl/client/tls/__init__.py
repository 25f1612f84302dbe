"""TLS towards the API server: what is trusted and shown, and why it failed."""
