"""What the cluster looks like, kept current: objects as a small header and their bytes, one informer per kind."""
