"""`python -m secretscan`: names each line of what git would commit that holds a secret, and never the secret.

The exit code is 0 when there is none, 1 when there is one, 2 when git can't be asked.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from secretscan.scanner import scan

ADVICE = """\
Take it out of the commit (`git rm --cached FILE`, or change it and `git add` it again); what has been pushed is no
secret any more: revoke it. A value that is made up gets `# pragma: allowlist secret` at the end of its line."""


def main() -> int:
    """Scan, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m secretscan", description=__doc__)
    parser.add_argument("--staged", action="store_true", help="only what differs from the last commit")
    parser.add_argument("repository", nargs="?", type=Path, default=Path(), help="default: the current folder")
    options = parser.parse_args()
    try:
        found, count = scan(options.repository, staged=options.staged)
    except FileNotFoundError as error:
        print(f"git can't be asked: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"git can't be asked: {error.stderr.decode(errors='replace').strip()}", file=sys.stderr)
        return 2
    for path, line, what in found:
        print(f"{path}:{line}: {what}")
    if found:
        print(f"{len(found)} of these must not be committed. {ADVICE}", file=sys.stderr)
        return 1
    print(f"No secret in {count} files.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
