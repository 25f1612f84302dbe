"""A ServiceAccount with RBAC rules of its own, and a kubeconfig with a real token of it."""

import secrets
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import yaml

from asyncctl.generate.rbac import Rule
from tests.e2e.cluster import Cluster

RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Account:
    """One ServiceAccount in namespace `controllers`; `grant` gives it rules, `clear` takes all away."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.name = f"operator-{secrets.token_hex(3)}"
        self._accounts = "/api/v1/namespaces/controllers/serviceaccounts"
        self._made: list[str] = []
        self._make(self._accounts, {"metadata": {"name": self.name}})

    @property
    def username(self) -> str:
        return f"system:serviceaccount:controllers:{self.name}"

    def grant(self, rules: Iterable[Rule]) -> None:
        """Let it do what the rules say, where they say."""
        placed: dict[str | None, list[object]] = defaultdict(list)
        for rule in filter(lambda rule: rule.verbs, rules):
            placed[rule.namespace].append(rule.as_json())
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": "controllers"}
        for namespace, wanted in placed.items():
            kind, prefix = (
                ("Role", f"{RBAC}/namespaces/{namespace}/") if namespace else ("ClusterRole", f"{RBAC}/cluster")
            )
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": self.name}
            meta = {"metadata": {"name": self.name}}
            self._make(f"{prefix}roles", meta | {"rules": wanted})
            self._make(f"{prefix}rolebindings", meta | {"roleRef": role, "subjects": [subject]})

    def kubeconfig(self, path: Path, *, pod: str = "") -> Path:
        """Write a kubeconfig of it; the token is bound to a pod, if one is named."""
        token, plane = self.token(pod), self.cluster.plane
        content = {
            "clusters": [{"name": "k", "cluster": {"server": plane.url, "certificate-authority": str(plane.ca_file)}}],
            "users": [{"name": self.name, "user": {"token": token}}],
            "contexts": [{"name": "k", "context": {"cluster": "k", "user": self.name}}],
            "current-context": "k",
        }
        path.touch(0o600)
        path.write_text(yaml.safe_dump(content))
        return path

    def token(self, pod: str = "") -> str:
        """A token of it; bound to a pod of that name, which is made, if one is named."""
        spec: dict[str, object] = {"expirationSeconds": 3600}
        if pod:
            containers = [{"name": "c", "image": "none"}]
            wanted = {"metadata": {"name": pod}, "spec": {"serviceAccountName": self.name, "containers": containers}}
            made = self._make("/api/v1/namespaces/controllers/pods", wanted)
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": made["metadata"]["uid"]}
        answer = self.cluster.call("POST", f"{self._accounts}/{self.name}/token", {"spec": spec})
        token = str(answer["status"]["token"])
        self.cluster.secrets.add(token)
        return token

    def clear(self) -> None:
        for path in reversed(self._made):
            self.cluster.call("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})

    def _make(self, path: str, wanted: dict[str, object]) -> dict[str, object]:
        made = self.cluster.call("POST", path, wanted)
        self._made.append(f"{path}/{made['metadata']['name']}")
        return made
