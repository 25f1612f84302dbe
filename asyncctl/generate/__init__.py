"""What is made from the code: the CRD of a kind, the fence of an operator. It writes documents and asks no server."""

from asyncctl.generate.fence import fence_yaml
from asyncctl.generate.schema import SchemaError, crd, crd_yaml

__all__ = ["SchemaError", "crd", "crd_yaml", "fence_yaml"]
