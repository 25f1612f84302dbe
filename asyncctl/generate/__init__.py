"""What is made from the code: the CRD of a kind, its protection from deletion, the fence of an operator. It writes documents and asks no server."""

from asyncctl.generate.fence import fence_yaml
from asyncctl.generate.protection import protection_yaml
from asyncctl.generate.schema import SchemaError, crd, crd_yaml

__all__ = ["SchemaError", "crd", "crd_yaml", "fence_yaml", "protection_yaml"]
