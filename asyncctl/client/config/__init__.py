"""Which cluster, and as whom: the search for a configuration, and the credentials that come of it."""
