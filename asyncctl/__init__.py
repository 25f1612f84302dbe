"""The asyncio-native controller runtime for Kubernetes."""
