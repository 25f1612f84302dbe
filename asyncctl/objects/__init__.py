"""The Kubernetes object model: kinds as classes, their metadata, conditions, quantities and JSON. No I/O, no clock."""

from asyncctl.objects.base import Meta, Part, Rule, Spec, field, list_map
from asyncctl.objects.builtin import ConfigMap, Event, EventSeries, Namespace, ObjectReference, Secret, micro_time
from asyncctl.objects.codec import DecodeError, decode, dump, encode, from_dict, to_dict
from asyncctl.objects.conditions import Condition, Conditions, ConditionStatus, Status
from asyncctl.objects.json import Json, JsonObject
from asyncctl.objects.meta import ObjectMeta, OwnerReference, controller_of
from asyncctl.objects.quantity import IntOrString, Quantity
from asyncctl.objects.resource import (
    Column,
    Kind,
    Resource,
    ResourceType,
    Unstructured,
    owner_reference,
    ready_column,
    resource_type_of,
)

__all__ = [
    "Column",
    "Condition",
    "ConditionStatus",
    "Conditions",
    "ConfigMap",
    "DecodeError",
    "Event",
    "EventSeries",
    "IntOrString",
    "Json",
    "JsonObject",
    "Kind",
    "Meta",
    "Namespace",
    "ObjectMeta",
    "ObjectReference",
    "OwnerReference",
    "Part",
    "Quantity",
    "Resource",
    "ResourceType",
    "Rule",
    "Secret",
    "Spec",
    "Status",
    "Unstructured",
    "controller_of",
    "decode",
    "dump",
    "encode",
    "field",
    "from_dict",
    "list_map",
    "micro_time",
    "owner_reference",
    "ready_column",
    "resource_type_of",
    "to_dict",
]
