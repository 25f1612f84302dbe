"""What an operator does to the API beyond what its controllers declare: the source of further RBAC rules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncctl.objects.resource import ResourceType


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that is done by the live client; made by `Operator.needs`, which tells what each part means."""

    kind: ResourceType
    verbs: tuple[str, ...]
    names: tuple[str, ...]
    subresource: str
    optional: bool
    when: Callable[[Any], bool]
    why: str
