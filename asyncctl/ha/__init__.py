"""One of several replicas works: the Lease, who holds it, and the fence that stops the one who no longer does."""
