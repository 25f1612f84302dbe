"""Where databases come from."""
