"""The names by which JSON is meant in signatures. They promise nothing a decoder has not checked."""

from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
Json: TypeAlias = JsonObject | list[Any] | str | int | float | bool | None
