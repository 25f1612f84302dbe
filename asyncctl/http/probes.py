"""Whether the process lives, and whether it may be sent work, as a list of named checks.

A check is a function that returns None or the reason why not; it looks at state that is there already and waits for
nothing. Liveness and readiness have lists of their own, and a third list gates nothing: it is shown to who asks for
`?verbose`. The text is that of kube-apiserver's endpoints, which people and tools know. No HTTP here.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

__all__ = ["Answer", "Probe", "Probes"]

Probe = Callable[[], str | None]
"""Returns None when all is well, else the reason in one line."""


class Answer(NamedTuple):
    """What a probe is told."""

    ok: bool
    text: str


class Probes:
    """The checks of one process. Checks may be added at any time."""

    def __init__(self) -> None:
        # `ping` says that there is an answer at all: the event loop ran to give it.
        self._live: dict[str, Probe] = {"ping": _well}
        self._ready: dict[str, Probe] = {"ping": _well}
        self._info: dict[str, Probe] = {}

    def live(self, name: str, probe: Probe) -> None:
        """Have `/livez` fail, and so the process restarted, while `probe` returns a reason. Nothing outside of it."""
        _add(self._live, name, probe)

    def ready(self, name: str, probe: Probe) -> None:
        """Have `/readyz` fail while `probe` returns a reason."""
        _add(self._ready, name, probe)

    def inform(self, name: str, probe: Probe) -> None:
        """Show what `probe` returns in `/readyz?verbose`, which does not fail by it."""
        _add(self._info, name, probe)

    def has(self, name: str) -> bool:
        """Whether there is a check of this name in any of the lists."""
        return any(name in checks for checks in (self._live, self._ready, self._info))

    def remove(self, name: str) -> None:
        """Drop the checks of this name from all lists; harmless when there are none."""
        for checks in (self._live, self._ready, self._info):
            checks.pop(name, None)

    def livez(self, *, verbose: bool = False, exclude: Collection[str] = ()) -> Answer:
        """Answer `/livez`."""
        return _answer("livez", self._live, {}, verbose=verbose, exclude=exclude)

    def readyz(self, *, verbose: bool = False, exclude: Collection[str] = ()) -> Answer:
        """Answer `/readyz`."""
        return _answer("readyz", self._ready, self._info, verbose=verbose, exclude=exclude)


def _well() -> None:
    return None


def _add(checks: dict[str, Probe], name: str, probe: Probe) -> None:
    if name in checks:
        raise ValueError(f"there is a check called {name!r} already")
    checks[name] = probe


def _ask(probe: Probe) -> str | None:
    try:
        return probe()
    except Exception as error:  # noqa: BLE001  # a check that is broken is a check that fails, and says so
        return f"the check itself failed: {type(error).__name__}: {error}"


def _answer(
    title: str, gates: Mapping[str, Probe], info: Mapping[str, Probe], *, verbose: bool, exclude: Collection[str]
) -> Answer:
    failed = False
    lines: list[str] = []
    for name, probe in gates.items():
        if name in exclude:
            lines.append(f"[+]{name} excluded: ok")
        elif (reason := _ask(probe)) is None:
            lines.append(f"[+]{name} ok")
        else:
            failed = True
            lines.append(f"[-]{name} failed: {_one_line(reason)}")
    lines += _informed(info) if verbose or failed else ()
    unknown = sorted(set(exclude) - gates.keys())
    if unknown:
        lines.append(f"warn: some checks can't be excluded: no matches for {', '.join(map(repr, unknown))}")
    if failed:
        return Answer(ok=False, text="\n".join([*lines, f"{title} check failed", ""]))
    return Answer(ok=True, text="\n".join([*lines, f"{title} check passed", ""]) if verbose else "ok")


def _informed(info: Mapping[str, Probe]) -> Iterator[str]:
    for name, probe in info.items():
        reason = _ask(probe)
        yield f"[ ]{name}: {'ok' if reason is None else _one_line(reason)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
