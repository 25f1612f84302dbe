"""Which settings of PostgreSQL a `Database` in the cluster may set, and why others are not its own.

The API server refuses what is refused here by the rules of the CRD, and the controller refuses it again: an object may
be older than a rule. What a value may be, the server knows; a bad one shows as a crash with the server's own words.
"""

import re
from collections.abc import Mapping

NAME = r"^[a-z_][a-z0-9_]*([.][a-z_][a-z0-9_]*)?$"
"""A setting, or one of an extension: `pg_stat_statements.max`. PostgreSQL would take `Port` for `port`; nobody else."""
PLACE = (
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "password_encryption",
    "port",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
)
"""Where the server is and who gets in: the operator, the probes and the Secrets count on it."""
PROGRAMS = (
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "dynamic_library_path",
    "extension_control_path",
    "jit_provider",
    "oauth_validator_libraries",
    "recovery_end_command",
    "restore_command",
)
"""What the server would run, or load from elsewhere: who may set a parameter must not run a program by it, past the
cluster's rules on images. `shared_preload_libraries` is not among them: it loads what the image has."""
PLACE_ADVICE = "addresses, ports, sockets, ssl, password_encryption and files belong to the operator: leave them out"
PROGRAMS_ADVICE = "parameters that run a program or load a library from elsewhere can't be set: leave them out"
NAME_ADVICE = "a parameter's name is in lower case, such as max_connections or pg_stat_statements.max"


def refusal(parameters: Mapping[str, str]) -> str:
    """Say which of these can't be set, and why; empty where all can."""
    for name in parameters:
        if not re.fullmatch(NAME, name):
            return f"spec.inCluster.parameters.{name}: {NAME_ADVICE}"
        if name in PLACE or name == "ssl" or name.startswith("ssl_"):
            return f"spec.inCluster.parameters.{name}: {PLACE_ADVICE}"
        if name in PROGRAMS:
            return f"spec.inCluster.parameters.{name}: {PROGRAMS_ADVICE}"
    return ""
