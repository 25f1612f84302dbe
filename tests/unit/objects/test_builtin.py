from datetime import UTC, datetime, timedelta, timezone

import pytest

from asyncctl.objects import ConfigMap, Event, Namespace, ObjectReference, Secret, micro_time, to_dict


@pytest.mark.parametrize(
    "kind, path",
    [
        (ConfigMap, "/api/v1/configmaps"),
        (Secret, "/api/v1/secrets"),
        (Namespace, "/api/v1/namespaces"),
        (Event, "/apis/events.k8s.io/v1/events"),
    ],
)
def test_a_kind_of_kubernetes_is_where_it_is_served(kind, path):
    assert kind.resource_type.path() == path


def test_kinds_without_a_generation_say_so():
    assert not [kind for kind in (ConfigMap, Secret, Namespace, Event) if kind.resource_type.has_generation]


def test_a_micro_time_has_six_digits():
    assert micro_time(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05.000000Z"
    east = timezone(timedelta(hours=1))
    assert micro_time(datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=east)) == "2026-01-02T02:04:05.000678Z"


def test_an_event_is_written_as_the_api_has_it():
    event = Event(
        name="e",
        namespace="team",
        event_time="2026-01-02T03:04:05.000000Z",
        type="Normal",
        reason="Provisioned",
        action="Provision",
        note="done",
        regarding=ObjectReference(api_version="v1", kind="ConfigMap", namespace="team", name="c"),
        reporting_controller="example.com/widgets",
        reporting_instance="pod-1",
    )
    assert to_dict(event) == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "team"},
        "eventTime": "2026-01-02T03:04:05.000000Z",
        "type": "Normal",
        "reason": "Provisioned",
        "action": "Provision",
        "note": "done",
        "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "team", "name": "c"},
        "reportingController": "example.com/widgets",
        "reportingInstance": "pod-1",
    }
