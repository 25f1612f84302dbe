"""What is made from the code: a kind's CRD and its protection from deletion, an operator's fence. It asks no server."""

from asyncctl.generate.fence import fence_yaml
from asyncctl.generate.protection import protection_yaml
from asyncctl.generate.schema import SchemaError, crd, crd_yaml

__all__ = ["SchemaError", "crd", "crd_yaml", "fence_yaml", "protection_yaml"]
