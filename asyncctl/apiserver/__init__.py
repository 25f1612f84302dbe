"""The embedded API server: Kubernetes' API inside the process, for development and tests.

It listens on a real port, keeps everything in memory and forgets it when it stops. It imports nothing else of asyncctl,
so that a bug there cannot cancel itself out here. Where it differs from the real kube-apiserver is listed in
`tests/conformance/differences.md`.
"""

from asyncctl.apiserver.server import ApiServer

__all__ = ["ApiServer"]
