"""What a request is about: how error texts and logs name it, and which RBAC rule would allow it.

Everything is told from the request itself. Nothing is read out of what a server says.
"""

import json

import msgspec


class Target(msgspec.Struct, frozen=True, gc=False):  # each request makes one: a dataclass takes 8 times as long
    """One request: what is done to what.

    Attributes:
        verb: as RBAC has it, and `apply`, which is a patch that may create.
        resource: `configmaps`, `widgets.example.com`, `widgets.example.com/status`; or a path, such as `/version`.
        namespace: `None` for all namespaces, or for what is in none.
        name: `None` for a whole collection.
    """

    verb: str
    resource: str
    namespace: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.resource} {where}".rstrip()

    @property
    def is_path(self) -> bool:
        """Whether it is no resource at all, such as `/version`."""
        return self.resource.startswith("/")

    @property
    def plural(self) -> str:
        """The resource without its group: `widgets`."""
        return self.resource.partition("/")[0].partition(".")[0]

    @property
    def group(self) -> str:
        """The resource's group: `example.com`; empty for the core group."""
        return self.resource.partition("/")[0].partition(".")[2]

    @property
    def is_secret(self) -> bool:
        """Whether it is about Secrets, so that what a server quotes of it may be secret."""
        if self.is_path:
            return "/secrets" in self.resource
        return self.plural == "secrets" and not self.group

    @property
    def subresource(self) -> str:
        """`status`, `scale`, …; empty for the object itself."""
        return "" if self.is_path else self.resource.partition("/")[2]

    def permission(self) -> str:
        """Say which rule of RBAC allows this request and nothing more, and where it has to stand."""
        if self.is_path:
            rule = f"nonResourceURLs: [{json.dumps(self.resource)}], verbs: [{self.verb}]"
            return _sentence("a ClusterRole", "ClusterRoleBinding", rule)
        verbs = self.verb
        if verbs == "apply":
            verbs = "patch" if self.subresource else "create, patch"
        resource = f"{self.plural}/{self.subresource}" if self.subresource else self.plural
        rule = f"apiGroups: [{json.dumps(self.group)}], resources: [{resource}], verbs: [{verbs}]"
        if self.name and self._named:
            rule += f", resourceNames: [{json.dumps(self.name)}]"
        if self.namespace:
            return _sentence(f"a Role in namespace {self.namespace}", "RoleBinding", rule)
        return _sentence("a ClusterRole", "ClusterRoleBinding", rule)

    @property
    def _named(self) -> bool:
        """Whether the server knows the name when it decides: it is in the path, not in a body."""
        return self.verb not in {"list", "watch", "deletecollection"} and (
            self.verb != "create" or bool(self.subresource)
        )


def _sentence(role: str, binding: str, rule: str) -> str:
    return f"{role} would allow it with the rule {{{rule}}}, bound to this user by a {binding}"
