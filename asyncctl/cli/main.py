"""The command line: parse, call, print. A command's own modules are imported when it is called, not before."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from asyncctl.version import __version__

_COMMANDS = """\
commands:
  run         the daemon: gives each Database object a PostgreSQL database
  check       whether an operator could do its work here: cluster, access, CRDs, servers
  dev         all of it on this machine: API server, PostgreSQL and daemon
  apiserver   the embedded API server alone, for kubectl and for tests
  manifests   write what is generated from the code: CRD, RBAC, fence, deletion protection
  version     what this is

`asyncctl COMMAND --help` tells more; `asyncctl run --help` lists every setting."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that `arguments` (default: those of the process) name, and exit with its code."""
    parser = _parser("asyncctl", "The asyncio-native controller runtime for Kubernetes, and its Database controller.")
    parser.epilog = _COMMANDS
    parser.add_argument("command", metavar="COMMAND", choices=list(_CALLS), nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.command is None:
        parser.print_help()
        sys.exit(2)
    sys.exit(_CALLS[parsed.command](parsed.rest))


def _parser(program: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{program} COMMAND [OPTIONS]" if program == "asyncctl" else None,
    )  # fmt: skip


def _run(arguments: Sequence[str]) -> int:
    from asyncctl.database.operator import database_operator
    from asyncctl.operator.process import main as serve
    from asyncctl.operator.usage import usage

    operator = database_operator()
    parser = _parser("asyncctl run", "The daemon. It is configured by environment variables alone.")
    parser.epilog = usage(operator.settings, os.environ)
    parser.parse_args(arguments)
    return serve(operator, os.environ)


_CHECKED = """\
what is looked at, in this order:
  settings       read as `asyncctl run` reads them (bad ones are told, and nothing else is looked at)
  configuration  which cluster, found where, and as whom
  tls            how the server is verified, and until when its certificate is good
  api-server     whether it answers, and how fast
  version        whether it is one that is supported
  user           who the server takes us for
  clock          whether this machine's and the server's agree
  api KIND       whether each declared kind is served in its version, preferred, or deprecated
  crd NAME       whether the operator's CRDs are there, and the same as its code generates
  protection NAME  whether the API server refuses to delete an object that has spec.deletionProtection
  rbac RULE      whether the user may do what the operator needs; if not, which rule would allow it
  lease NAME     whether there is a place for its Lease
  fence NAME     whether the API server refuses what replicas write that do not lead, and is right about who does
  and what the operator adds: here, its catalogue and each PostgreSQL server in it

Nothing is changed: not in the cluster, not on a server. Run it with the operator's own credentials to know what
the operator may do. Each line is ok, a warning, failed, or skipped because of an earlier one.

--output json: {"checks": [{"check", "state", "message", "details"}, ...],
                "summary": {"passed", "ok", "warning", "failed", "skipped"}}
exit code: 0 if nothing has failed (there may be warnings), 1 if something has, 2 if the settings or arguments are
wrong. `asyncctl run --help` lists the settings, which are environment variables."""


def _check(arguments: Sequence[str]) -> int:
    parser = _parser("asyncctl check", "Whether an operator could do its work here, before it is deployed.")
    parser.epilog = _CHECKED
    parser.add_argument(
        "operator", metavar="MODULE:OPERATOR", nargs="?",
        help="an Operator of yours, or a function that returns one; default: the shipped one, of `asyncctl run`",
    )  # fmt: skip
    parser.add_argument("--output", choices=["text", "json"], default="text", help="default: text")
    parsed = parser.parse_args(arguments)
    from asyncctl.cli import check
    from asyncctl.database.operator import database_operator

    try:
        operator = check.load(parsed.operator) if parsed.operator else database_operator()
    except check.NoOperator as error:
        parser.error(str(error))
    return check.main(operator, os.environ, output=parsed.output)


def _dev(arguments: Sequence[str]) -> int:
    parser = _parser(
        "asyncctl dev",
        "An embedded API server, a temporary PostgreSQL and the daemon, in one process on this machine.\n"
        "Nothing is needed beforehand and nothing is left afterwards. Ctrl-C ends it.\n"
        "The settings of `asyncctl run` are heeded, but for the cluster and ASYNCCTL_DATABASE_SERVERS: it has its own\n"
        "of both. "
        "Nothing runs pods there: of a Database of provisioner InCluster all objects are made, and it waits.",
    )
    parser.add_argument("--demo", action="store_true", help="make a Database, and show how it becomes Running")
    parser.add_argument("--exit", action="store_true", help="with --demo: end with 0 as soon as it is Running")
    parsed = parser.parse_args(arguments)
    if parsed.exit and not parsed.demo:
        parser.error("--exit goes with --demo")
    try:
        from asyncctl.cli import dev
    except ModuleNotFoundError as error:
        return _extra_needed("dev", error)
    return dev.main(os.environ, demo=parsed.demo, leave=parsed.exit)


def _apiserver(arguments: Sequence[str]) -> int:
    parser = _parser(
        "asyncctl apiserver",
        "The embedded API server, for development and tests: it keeps everything in memory and checks no credentials.\n"
        "It listens on 127.0.0.1 and prints `ready PATH` once kubectl can use the kubeconfig. Ctrl-C ends it.",
    )
    parser.add_argument(
        "--kubeconfig",
        metavar="PATH",
        type=Path,
        required=True,
        help="write the kubeconfig here (mode 0600); a file that this command did not write is left as it is",
    )
    parser.add_argument("--port", metavar="N", type=_port, default=0, help="default: a free one")
    parsed = parser.parse_args(arguments)
    try:
        from asyncctl.cli import apiserver
    except ModuleNotFoundError as error:
        return _extra_needed("apiserver", error)
    return apiserver.main(parsed.kubeconfig, parsed.port)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535, 0 for a free one")
    return int(text)


def _manifests(arguments: Sequence[str]) -> int:
    parser = _parser(
        "asyncctl manifests",
        "Write what is generated from the code: crd/bases/*.yaml, rbac/operator.yaml, fence/operator.yaml, and\n"
        "protection/*.yaml for kinds that have spec.deletionProtection. Of the shipped operator, the default, also\n"
        "rbac-external/operator.yaml: what it takes with ASYNCCTL_DATABASE_PROVISIONERS=External.\n"
        "For an operator that is named the settings in force count: ASYNCCTL_NAMESPACES, ASYNCCTL_LEASE_NAME and the\n"
        "like; the shipped one is asyncctl.database.operator:database_operator.",
    )
    parser.add_argument(
        "operator", metavar="MODULE:OPERATOR", nargs="?",
        help="an Operator of yours, or a function that returns one; default: the shipped one",
    )  # fmt: skip
    parser.add_argument("--account", metavar="NAME", help="its own ServiceAccount; default: the operator's name")
    parser.add_argument("--namespace", metavar="NAME", help="of the ServiceAccount; default: controllers")
    parser.add_argument("--output", metavar="FOLDER", type=Path, help="default: to standard output")
    parsed = parser.parse_args(arguments)
    from asyncctl.cli import check, manifests
    from asyncctl.settings import SettingsError

    given = {name: value for name in ("account", "namespace") if (value := getattr(parsed, name)) is not None}
    try:
        if parsed.operator is None:
            made = manifests.manifests(**given)
        else:
            operator = check.load(parsed.operator)
            settings = operator.settings.from_environment(os.environ)
            made = manifests.manifests(operator, settings, **{"account": operator.name, **given})
    except (check.NoOperator, SettingsError, ValueError) as error:
        parser.error(str(error))
    return manifests.main(parsed.output, made)


def _version(arguments: Sequence[str]) -> int:
    _parser("asyncctl version", "What this is.").parse_args(arguments)
    print(f"asyncctl {__version__}")
    return 0


def _extra_needed(command: str, error: ModuleNotFoundError) -> int:
    print(f"asyncctl {command} needs {error.name}: pip install 'asyncctl[dev]'", file=sys.stderr)
    return 2


_CALLS = {
    "run": _run,
    "check": _check,
    "dev": _dev,
    "apiserver": _apiserver,
    "manifests": _manifests,
    "version": _version,
}
