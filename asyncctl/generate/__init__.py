"""What is made from the code: the CRD of a kind. It reads classes and writes documents; it talks to no server."""

from asyncctl.generate.schema import SchemaError, crd, crd_yaml

__all__ = ["SchemaError", "crd", "crd_yaml"]
