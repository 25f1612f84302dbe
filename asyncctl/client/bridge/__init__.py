"""kubernetes-asyncio's generated APIs over our own transport."""
