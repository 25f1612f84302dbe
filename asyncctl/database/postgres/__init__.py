"""PostgreSQL as the Database controller uses it: connections, roles, databases. Knows nothing of Kubernetes."""
