"""What keeps a kubeconfig, a private key or a bearer token out of the repository: `python -m secretscan`."""
