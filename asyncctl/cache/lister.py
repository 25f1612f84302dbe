"""Lists one kind in one scope: page by page, and anew where the server forgets the moment of the pages half way."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from asyncctl.cache.unread import split_page
from asyncctl.client.client import Client
from asyncctl.client.errors import Gone, ServerError, StreamError
from asyncctl.client.listing import PAGE, Page
from asyncctl.client.requests import Selection
from asyncctl.objects.resource import ResourceType

T = TypeVar("T")


class Lister:
    """Asks for lists, which are as new as can be where it is not said otherwise.

    Args:
        client: Whom to ask.
        kind: What is listed.
        which: The scope and the selectors.
        metadata_only: Whether of each object its metadata alone are asked for.
    """

    def __init__(self, client: Client, kind: ResourceType, which: Selection, *, metadata_only: bool) -> None:
        self._client = client
        self._kind = kind
        self._which = which
        self._metadata_only = metadata_only

    async def page(self, token: str = "", *, limit: int = PAGE, at_least: int | None = None) -> Page:
        """One page.

        Args:
            token: Of the page before; empty for the first.
            limit: Objects at most; 0: all.
            at_least: The first page may be as old as this; None: it is as new as can be.

        Raises:
            KubernetesError: There was no page.
        """
        try:
            return await self._client.list_page(
                self._kind, limit=limit, continue_token=token, resource_version=str(at_least) if at_least else None,
                not_older=True, metadata_only=self._metadata_only, **self._which,
            )  # fmt: skip
        except ServerError as error:
            if not isinstance(error.__cause__, RecursionError):
                raise
            return split_page(error.body)  # one object is nested too deeply for a decoder: the others are not

    async def all(
        self, read: Callable[[Page], Iterable[T]], first: Page | None = None, *, at_least: int | None = None
    ) -> tuple[list[T], int]:
        """All there is, and where the list stands.

        Args:
            read: What is kept of a page.
            first: The first page, where it is there already.
            at_least: See `page`.

        Raises:
            KubernetesError: A page could not be had.
        """
        found: list[T] = []
        page = first or await self.page(at_least=at_least)
        while True:
            found += read(page)
            if not page.continue_token:
                return found, self.version(page)
            token = page.continue_token
            try:
                page = await self.page(token)
                if page.continue_token == token:
                    raise StreamError(f"list {self._kind.resource}: a page is said to be followed by itself")
            except Gone:
                found.clear()
                page = await self.page(limit=0)  # one that can't expire half way

    def version(self, page: Page) -> int:
        """Where a list stands. Raises `StreamError`: taken for 0, a strange answer would empty the cache."""
        if page.resource_version.isdecimal():
            return int(page.resource_version)
        raise StreamError(
            f"list {self._kind.resource}: its resourceVersion {page.resource_version!r} is no number, so that nothing "
            "can be watched from it; is this API served by something else than a Kubernetes API server?"
        )
