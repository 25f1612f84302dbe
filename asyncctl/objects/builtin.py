"""The kinds of Kubernetes itself that asyncctl works with. Each has the fields we use, not all there are."""

from datetime import UTC, datetime

from asyncctl.objects.base import Part, field
from asyncctl.objects.resource import Resource


class ConfigMap(Resource, group="", version="v1", short_names=["cm"], has_generation=False, omit_empty=True):
    """Plain settings."""

    data: dict[str, str] = field(default_factory=dict)
    binary_data: dict[str, bytes] = field(default_factory=dict)
    immutable: bool | None = None


class Secret(Resource, group="", version="v1", has_generation=False, omit_empty=True):
    """Confidential data: bytes here, base64 on the wire. Its `repr` and its errors show no value."""

    hides_values = True

    type: str = "Opaque"
    data: dict[str, bytes] = field(default_factory=dict)
    immutable: bool | None = None


class Namespace(Resource, group="", version="v1", scope="Cluster", short_names=["ns"], has_generation=False):
    """A namespace."""


class ObjectReference(Part, omit_empty=True):
    """Which object is meant."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class EventSeries(Part):
    """How often an event was seen, and when last (`micro_time`)."""

    count: int
    last_observed_time: str


class Event(Resource, group="events.k8s.io", version="v1", short_names=["ev"], has_generation=False, omit_empty=True):
    """What happened to an object, for people. `event_time` is a `micro_time`."""

    event_time: str | None = None
    type: str = ""
    reason: str = ""
    action: str = ""
    note: str = ""
    regarding: ObjectReference | None = None
    related: ObjectReference | None = None
    reporting_controller: str = ""
    reporting_instance: str = ""
    series: EventSeries | None = None


def micro_time(time: datetime) -> str:
    """Return a time as metav1.MicroTime wants it: in UTC, with exactly six digits of the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
