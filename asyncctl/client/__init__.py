"""The only place that talks to the Kubernetes API server; its errors are in `asyncctl.client.errors`."""

from asyncctl.client.changes import Bookmark, Change
from asyncctl.client.client import Client
from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.listing import Listing, Page
from asyncctl.client.patch import Patch
from asyncctl.client.subresources import Scale, Token

__all__ = ["Bookmark", "Change", "Client", "ClusterConfig", "Listing", "Page", "Patch", "Scale", "Token"]
