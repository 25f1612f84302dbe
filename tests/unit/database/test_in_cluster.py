"""What is wanted of an instance in the cluster, and what its volume and its pod say: pure functions of objects."""

import re

import pytest
from hypothesis import given, strategies as st

from asyncctl.database import parameters
from asyncctl.database.postgres.verifier import fits, verifier
from asyncctl.database.provisioners import storage, workload
from asyncctl.database.provisioners.manifests import Names, arguments, image, services, stateful_set, volume_claim
from asyncctl.database.provisioners.place import PlaceRefused
from asyncctl.database.types import Database, DatabaseSpec, InClusterSpec, Provisioner, StorageSpec
from asyncctl.objects import Quantity

LONG = "a" * 253


def database(name="orders", **wanted):
    wanted = {"version": "17.5", "storage": StorageSpec(size=Quantity("1Gi"))} | wanted
    spec = DatabaseSpec(provisioner=Provisioner.IN_CLUSTER, in_cluster=InClusterSpec(**wanted))
    return Database(name=name, namespace="team", spec=spec)


def made(name="orders", **wanted):
    return stateful_set(database(name, **wanted), repository="registry.example.com/postgres", verifier="v")


def container(**wanted):
    return made(**wanted)["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("name", ["orders", "1st", "a.b", "a" * 43, "a" * 44, LONG, "0.0", "a-" * 30 + "b"])
def test_names_fit_whatever_a_database_is_called(name):
    names = Names.of(name)
    assert len(names.service) <= 52
    assert max(map(len, (names.pods, names.pod, names.claim, names.secret))) <= 63
    assert names.service[0].isalpha()
    assert names.service.replace("-", "").isalnum()
    assert "--postgres" not in names.service


def test_databases_of_like_names_have_their_own_objects():
    alike = ["a.b", "a-b", "1a", "db-1a", "a" * 44, "a" * 45, LONG]
    assert len({Names.of(name).service for name in alike}) == len(alike)


def test_the_selectors_of_two_databases_never_meet():
    one, other = (made(name)["spec"]["selector"] for name in ("a.b", "a-b"))
    assert one != other
    assert services(database("a.b"))[0]["spec"]["selector"] == one["matchLabels"]


def test_a_label_is_there_also_for_a_name_that_it_can_not_hold():
    assert 0 < len(made(LONG)["metadata"]["labels"]["apps.example.com/database"]) <= 63


def test_the_image_is_that_of_the_version_unless_another_is_asked_for():
    assert container()["image"] == "registry.example.com/postgres:17.5"
    assert image(database(image="mine:1"), "postgres") == "mine:1"


@pytest.mark.parametrize(("name", "user"), [("postgres:17-alpine3.22", 70), ("alpine/postgres:17", 999), ("x", 999)])
def test_the_user_is_the_images_own(name, user):
    context = made(image=name)["spec"]["template"]["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, user, user)


def test_a_parameter_can_not_read_the_containers_environment():
    assert "-c" in arguments({"a": "$(POSTGRES_PASSWORD)"})
    assert "a=$$(POSTGRES_PASSWORD)" in arguments({"a": "$(POSTGRES_PASSWORD)"})


@given(st.dictionaries(st.sampled_from(["work_mem", "a.b", "_x", "z"]), st.text("a$(){}'\"\\ =-\n\té")))
def test_whatever_a_parameter_is_it_reaches_postgresql_as_one_argument_and_no_other_setting(wanted):
    first, *pairs = arguments(wanted)
    assert (first, set(pairs[::2])) == ("postgres", {"-c"})
    given_values = dict(each.split("=", 1) for each in pairs[1::2])
    assert all(re.fullmatch(r"(?:[^$]|\$\$)*", value) for value in given_values.values())  # `$$` is a `$`, all there is
    found = {name: value.replace("$$", "$") for name, value in given_values.items() if name in wanted}
    assert found == wanted
    assert not given_values.keys() - wanted.keys() - set(parameters.PLACE)


def test_what_the_operator_counts_on_wins_and_comes_last():
    found = arguments({"port": "1", "zz": "b"})
    assert "port=5432" in found
    assert "port=1" not in found
    assert found.index("zz=b") < found.index("listen_addresses=*")


def test_another_verifier_is_another_pod():
    one, other = (stateful_set(database(), repository="p", verifier=each)["spec"]["template"] for each in "ab")
    assert one != other


@pytest.mark.parametrize("name", ["port", "ssl", "ssl_cert_file", "archive_command", "Port", "a b", "a;b", "x-y", ""])
def test_a_parameter_that_is_not_the_tenants_is_refused(name):
    assert parameters.refusal({"work_mem": "1MB", name: "x"})


def test_parameters_of_postgresql_and_its_extensions_are_taken():
    assert parameters.refusal({"max_connections": "1", "pg_stat_statements.max": "1", "_x": ""}) == ""


def test_a_verifier_fits_its_password_alone():
    known = verifier("secret")
    assert fits(known, "secret")
    assert not fits(known, "Secret")
    assert known != verifier("secret")


@pytest.mark.parametrize("known", ["", "secret", "SCRAM-SHA-256$4096:!!!$a:b", "SCRAM-SHA-256$999999:aa==$a:b"])
def test_what_is_no_verifier_of_ours_fits_nothing(known):
    assert not fits(known, "secret")


def claim(phase="Bound", *, size="1Gi", capacity="1Gi", **spec):
    wanted = volume_claim(database(), Quantity(size))
    status = {"phase": phase, "capacity": {"storage": capacity}}
    return wanted | {"spec": wanted["spec"] | spec, "status": status}


def test_a_claim_without_a_volume_says_what_it_waits_for():
    assert storage.pending(claim(), "") is None
    assert "StorageClass fast; 0/1 nodes" in str(
        storage.pending(claim("Pending", storageClassName="fast"), "0/1 nodes")
    )
    assert "no default one" in str(storage.pending(claim("Pending"), ""))
    assert storage.pending(claim("Lost"), "").reason == "VolumeLost"


def test_a_volume_that_has_not_grown_yet_says_how_far_it_is():
    assert storage.growing(claim()) == ""
    growing = claim(size="2Gi")
    growing["status"]["conditions"] = [{"type": "FileSystemResizePending", "status": "True", "message": "for a pod"}]
    assert storage.growing(growing) == ("the volume has 1Gi and grows to 2Gi; FileSystemResizePending: for a pod")


def test_a_kept_claim_of_another_version_or_class_is_refused():
    wanted = StorageSpec(size=Quantity("1Gi"), storage_class_name="fast")
    storage.refuse_other_data(claim(storageClassName="fast"), wanted, "17")
    with pytest.raises(PlaceRefused, match="data of PostgreSQL 17") as refused:
        storage.refuse_other_data(claim(storageClassName="fast"), wanted, "18")
    assert (refused.value.aspect, refused.value.reason) == ("StorageReady", "VersionMismatch")
    with pytest.raises(PlaceRefused, match="of class slow, not fast"):
        storage.refuse_other_data(claim(storageClassName="slow"), wanted, "17")


SET = {"metadata": {"name": "orders-postgres", "generation": 2}, "status": {"observedGeneration": 2}}


def pod(*, ready=False, conditions=(), **container):
    status = {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"image": "postgres:17"} | container]}
    truth = {"type": "Ready", "status": "True" if ready else "False"}
    return {"metadata": {"name": "orders-postgres-0"}, "status": status | {"conditions": [*conditions, truth]}}


def crashed(restarts, *, state=None, message=""):
    last = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}
    return pod(restartCount=restarts, state=state or {}, lastState=last)


@pytest.mark.parametrize(
    ("found", "reason", "trouble"),
    [
        (pod(state={"waiting": {"reason": "ErrImagePull", "message": "no such host"}}), "ImagePull", True),
        (pod(state={"waiting": {"reason": "InvalidImageName"}}), "ImagePull", True),
        (pod(state={"waiting": {"reason": "CreateContainerConfigError"}}), "ContainerFailed", True),
        (pod(state={"waiting": {"reason": "ContainerCreating"}}), "Starting", False),
        (pod(state={"running": {}}), "Starting", False),
        (crashed(1), "Starting", False),
        (crashed(2), "CrashLoop", True),
        (crashed(1, state={"waiting": {"reason": "CrashLoopBackOff"}}), "CrashLoop", True),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]),
            "Unschedulable",
            True,
        ),
        # the scheduler has not looked again since there is a volume
        (
            pod(
                conditions=[
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
                    }
                ]
            ),
            "Starting",
            False,
        ),
        ({"metadata": {"name": "p"}, "status": {"phase": "Failed", "reason": "Evicted"}}, "Failed", True),
        ({"metadata": {"name": "p", "deletionTimestamp": "x"}}, "Starting", False),
        ({"metadata": {"name": "p"}}, "Starting", False),
    ],
)
def test_a_pod_that_is_not_ready_says_why(found, reason, trouble):
    waiting = workload.not_ready(SET, found)
    assert (waiting.aspect, waiting.reason, waiting.trouble) == ("WorkloadReady", reason, trouble)


def test_a_pod_that_is_ready_is_one_to_talk_to_however_often_it_was_started():
    found = pod(ready=True)
    found["status"]["containerStatuses"][0] |= {"ready": True, "restartCount": 9, "lastState": {"terminated": {}}}
    assert workload.not_ready(SET, found) is None


def test_a_pod_of_before_the_last_change_is_not():
    found = pod(ready=True)
    found["metadata"]["labels"] = {"controller-revision-hash": "old"}
    changed = SET | {"status": {"observedGeneration": 2, "updateRevision": "new"}}
    assert "about to be replaced" in str(workload.not_ready(changed, found))
    assert workload.not_rolled_out(SET | {"status": {"observedGeneration": 1}}).after == workload.SOON


def test_of_a_servers_last_words_only_the_fatal_ones_are_shown():
    words = "LOG:  statement: ALTER ROLE a PASSWORD 'hush'\nFATAL:  could not map anonymous shared memory\nHINT:  less"
    told = str(workload.not_ready(SET, crashed(3, message=words)))
    assert "could not map anonymous shared memory" in told
    assert "hush" not in told


def test_why_there_is_no_pod_is_what_the_newest_event_says():
    events = [
        {"reason": "FailedCreate", "message": "violates PodSecurity", "lastTimestamp": "2026-01-01T00:00:00Z"},
        {"reason": "FailedCreate", "message": "exceeded quota: q", "eventTime": "2026-01-02T00:00:00.1Z"},
        {"reason": "SuccessfulCreate", "message": "made", "lastTimestamp": "2025-01-01T00:00:00Z"},
    ]
    assert workload.no_pod(SET, events).reason == "QuotaExceeded"
    assert workload.no_pod(SET, events[:1]).reason == "PodRefused"
    assert workload.no_pod(SET, []).reason == "Starting"
