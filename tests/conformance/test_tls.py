"""What is made of a real API server's TLS: its own way to sign, to name itself, and to answer plain HTTP."""

import pytest

from asyncctl.client.config.cluster import ClusterConfig
from asyncctl.client.errors import HostnameMismatch, TLSRequired, UnknownAuthority
from asyncctl.client.tls.context import explain_reply
from tests.unit.client.tls_kit import Issued, ask


async def test_its_own_certificate_is_trusted_and_an_unknown_one_told(kube):
    trusted = {"server": kube.url, "ca_file": str(kube.ca_file)}
    assert (await ask(ClusterConfig(**trusted))).startswith(b"HTTP/1.1 ")
    with pytest.raises(HostnameMismatch, match=r"not for x\.example; it is for .*kubernetes"):
        await ask(ClusterConfig(**trusted, tls_server_name="x.example"))
    assert (await ask(ClusterConfig(**trusted, tls_server_name="kubernetes"))).startswith(b"HTTP/1.1 ")
    with pytest.raises(UnknownAuthority, match="is signed by the CA CN="):
        await ask(ClusterConfig(server=kube.url, ca_data=Issued("another CA", ca=True).pem))


async def test_its_answer_to_plain_http_is_known(kube):
    config = ClusterConfig(server=kube.url.replace("https:", "http:"))
    told = explain_reply(config, await ask(config))
    assert isinstance(told, TLSRequired)
    assert f"use {kube.url}" in str(told)
