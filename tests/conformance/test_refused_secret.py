"""A Secret that the API server refuses: what the error says of it has none of its values."""

import traceback

import pytest

from asyncctl.client.errors import StatusError
from asyncctl.client.patch import Patch

VALUE = "hunter2-hunter2-hunter2"
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}


def text_of(error):
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": {"password": VALUE}},  # not in base64
        {"data": {"password": [VALUE]}},
        {"data": VALUE},
        {"stringData": {"password": {"deep": VALUE}}},
        {"stringData": {"not a key!": VALUE}},
        {"stringData": {"password": VALUE}, "type": "kubernetes.io/tls"},
        {"stringData": {".dockerconfigjson": VALUE}, "type": "kubernetes.io/dockerconfigjson"},
        {"stringData": {"password": VALUE}, "odd": VALUE},
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["create", "merge", "apply"])
async def test_a_refused_write_of_a_secret_tells_none_of_its_values(cluster, how, wrong):
    path = f"/api/v1/namespaces/{cluster.namespace}/secrets"
    refused = None
    try:
        if how == "create":
            await cluster.send("POST", path, SECRET | wrong)
        elif how == "merge":
            await cluster.send("POST", path, SECRET)
            await cluster.send("PATCH", f"{path}/s", wrong, Patch.MERGE.value)
        else:
            await cluster.send("PATCH", f"{path}/s?fieldManager=test", SECRET | wrong, Patch.APPLY.value)
    except StatusError as error:
        refused = error
    if refused is None:
        assert "odd" in wrong or how == "merge"  # an unknown field is dropped, with a warning
    else:
        assert "hunter2" not in text_of(refused), str(refused)
