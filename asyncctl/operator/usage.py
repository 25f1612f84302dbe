"""What a program can be told, and what is wrong with what it was told: for `--help` of any program."""

import os
import shutil
import sys
from collections.abc import Mapping

from asyncctl.settings import Settings, SettingsError

_SETTINGS = """\
A setting is an environment variable; an empty one is as none, unless its line
says otherwise. Durations are written 30s, 5m, 1h30m, 500ms, or in seconds."""
_EXITS = """\
exit code: 0 after SIGTERM, SIGINT or SIGHUP, when all work under way is done;
1 if the Lease is lost, something hangs, or for an error that nobody foresaw;
2 if settings, credentials or a port can't be used, or there is no cluster to
be found; 128 + its number, at once, on a second signal."""


def usage(settings: type[Settings], environ: Mapping[str, str]) -> str:
    """Return the table of settings, as wide as the terminal, what is wrong with those in force, and the exit codes."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None  # into a file or pipe: for grep
    told = [_SETTINGS, settings.describe(environ, width)]
    if warnings := settings.unknown(environ):
        told.append("\n".join(warnings))
    try:
        settings.from_environment(environ)
    except SettingsError as error:
        told.append(str(error))
    return "\n\n".join([*told, _EXITS])


def asks_for_help(arguments: list[str]) -> bool:
    """Whether a program was called for that alone. Its own arguments, if it has any, are its author's business."""
    return arguments in (["-h"], ["--help"])


def program_help(name: str, settings: type[Settings]) -> str:
    """Return what `--help` of a program prints, whose operator is called `name`."""
    called = os.path.basename(sys.argv[0])  # noqa: PTH119 - `-c`, or a path
    about = f"Operator {name}. It is configured by environment variables alone."
    return f"usage: {called} [-h]\n\n{about}\n\n{usage(settings, os.environ)}"
