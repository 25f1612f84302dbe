"""What every part of an object is made from: a `msgspec.Struct` whose fields are keywords, and camelCase on the wire.

It adds two class keywords: `rules`, CEL rules that the CRD carries wherever this part stands, and `omit_empty`, for the
types of Kubernetes itself that leave empty values out of their JSON. Encoding is in `codec`.
"""

from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

import msgspec
from msgspec import Meta, field

from asyncctl.objects.json import JsonObject

__all__ = ["Meta", "Part", "PartType", "Rule", "field", "list_map"]


class Rule(msgspec.Struct, frozen=True):
    """A validation rule of a CRD, in CEL (KEP-2876).

    Attributes:
        rule: the expression; `self` is the value, `oldSelf` what it was before an update.
        message: what the person who broke it reads: what is wanted, and what to do.
        path: where the rule stands, from the class that declares it, in wire names: `spec.size`; `users[]`: each item.
        reason: `FieldValueInvalid` (default), `FieldValueForbidden`, `FieldValueRequired` or `FieldValueDuplicate`.
    """

    rule: str
    message: str
    path: str = ""
    reason: str | None = None


def list_map(*keys: str) -> JsonObject:
    """Return the `Meta(extra_json_schema=…)` of a list whose items are told apart by these wire names."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


_P = TypeVar("_P", bound="PartType")


class PartType(msgspec.StructMeta):
    """The metaclass of `Part`: fields are keyword-only, so that a required one may follow one with a default."""

    def __new__(  # noqa: PYI019  # `Self` has no place in a metaclass
        mcls: type[_P],
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        rules: tuple[Rule, ...] | list[Rule] = (),
        omit_empty: bool | None = None,
        **config: Any,  # noqa: ANN401 - what `msgspec.Struct` takes
    ) -> _P:
        """Make the class; what `msgspec.Struct` takes is passed on."""
        config.setdefault("kw_only", True)
        cls = super().__new__(mcls, name, bases, namespace, **config)
        cls.__cel_rules__ = tuple(rules)
        if omit_empty is not None:
            cls.__omit_empty__ = omit_empty
        return cls

    if TYPE_CHECKING:
        __cel_rules__: tuple[Rule, ...]
        __omit_empty__: bool


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Part(msgspec.Struct, metaclass=PartType, rename="camel", repr_omit_defaults=True, omit_empty=False):
    """A part of an object: `snake_case` in Python, `camelCase` on the wire; only `None` is left out."""


class Spec(Part):
    """What is wanted: the base of a kind's `spec` and of the parts in it."""
