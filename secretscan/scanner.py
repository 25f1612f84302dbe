"""What git would commit, looked at file by file: by detect-secrets' detectors, and by our own rules.

The contents are those of git's index, as they would be committed, and not those of the working folder. Nothing is
verified anywhere: no secret leaves this process. A line that ends with `# pragma: allowlist secret`, or that follows
`# pragma: allowlist nextline secret`, has been looked at by a person.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from detect_secrets.filters import heuristic
from detect_secrets.plugins.artifactory import ArtifactoryDetector
from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.base import BasePlugin
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString, HexHighEntropyString
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

from secretscan.rules import Found, find, looks_random

BY_FORM: tuple[BasePlugin, ...] = (
    ArtifactoryDetector(), AWSKeyDetector(), DiscordBotTokenDetector(), GitHubTokenDetector(), JwtTokenDetector(),
    MailchimpDetector(), NpmDetector(), SendGridDetector(), SlackDetector(), SquareOAuthDetector(), StripeDetector(),
    TwilioKeyDetector(),
)  # fmt: skip
"""Not the detector by keywords, for which every made-up password is one; private keys are our own rules'."""

PASSWORDS = BasicAuthDetector()  # in URLs; they count when they look random
BY_ENTROPY = (Base64HighEntropyString(), HexHighEntropyString())
_PRAGMA = "pragma: allowlist secret"  # as detect-secrets has it; its own search is quadratic in blanks
_PRAGMA_BEFORE = "pragma: allowlist nextline secret"
_CHECKSUM = " h1:"  # a line of go.sum
_CERTIFICATE = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS"  # PEM in base64
_BY_MARK = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # what PowerShell's `>` writes


class Finding(NamedTuple):
    """Something secret in a file that git would commit."""

    path: str
    line: int
    what: str


class Blob(NamedTuple):
    """A file as the index has it."""

    path: str
    content: bytes


def scan(repository: Path, *, staged: bool = False) -> tuple[list[Finding], int]:
    """Look at the index of `repository`.

    Args:
        repository: A folder inside of a git work tree; all of that tree is looked at.
        staged: Only at what differs from the last commit.

    Returns:
        What was found, and how many files were looked at.

    Raises:
        subprocess.CalledProcessError: git can't read it; its own words are in `stderr`.
    """
    blobs = list(_index(repository, staged=staged))
    return sorted({finding for blob in blobs for finding in _look_at(blob)}), len(blobs)


def _look_at(blob: Blob) -> Iterator[Finding]:
    encoding = _BY_MARK.get(blob.content[:2], "latin-1" if b"\0" in blob.content[:8000] else "utf-8")
    text = blob.content.decode(encoding, errors="replace")
    lines = text.split("\n")
    for line, what in [*find(text), *_detect(text, lines)]:
        number = min(line, len(lines))  # YAML knows more line breaks than git
        if _PRAGMA not in lines[number - 1] and _PRAGMA_BEFORE not in lines[max(number - 2, 0)]:
            yield Finding(blob.path, number, what)


def _detect(text: str, lines: list[str]) -> Iterator[Found]:
    """What detect-secrets finds."""
    detectors = (*BY_FORM, PASSWORDS)
    by_form = [detector for detector in detectors if next(iter(detector.analyze_string(text)), None) is not None]
    for number, line in enumerate(lines, 1):
        for detector in by_form:
            for value in detector.analyze_string(line):
                if not (_made_up(value) or (detector is PASSWORDS and not looks_random(value))):
                    yield Found(number, detector.secret_type)
        if _CHECKSUM not in line:
            for guess in BY_ENTROPY:
                for value in guess.analyze_string(line):
                    if guess.calculate_shannon_entropy(value) > guess.entropy_limit and not _made_up(value):
                        yield Found(number, guess.secret_type)


def _made_up(value: str) -> bool:
    """Also what is no secret: a certificate."""
    return (
        value.startswith(_CERTIFICATE)
        or heuristic.is_not_alphanumeric_string(value)
        or heuristic.is_potential_uuid(value)
        or heuristic.is_prefixed_with_dollar_sign(value)
        or heuristic.is_sequential_string(value)
        or heuristic.is_templated_secret(value)
    )


def _index(repository: Path, *, staged: bool) -> Iterator[Blob]:
    root = Path(_git(repository, "rev-parse", "--show-toplevel").decode().rstrip("\n"))
    listed = _git(root, "ls-files", "--stage", "-z").decode(errors="surrogateescape").split("\0")[:-1]
    changed = None
    if staged:
        names = _git(root, "diff", "--cached", "--no-renames", "--name-only", "--diff-filter=d", "-z")
        changed = set(names.decode(errors="surrogateescape").split("\0"))
    wanted: list[tuple[str, str]] = []
    for entry in listed:
        meta, _, path = entry.partition("\t")
        mode, blob, _ = meta.split(" ")
        if mode.startswith("100") and (changed is None or path in changed):  # neither a link nor a submodule
            wanted.append((path, blob))
    answer = _git(root, "cat-file", "--batch", given="".join(f"{blob}\n" for _, blob in wanted).encode())
    at = 0
    for path, _ in wanted:
        head_end = answer.index(b"\n", at)
        size = int(answer[at:head_end].rsplit(b" ", 1)[1])
        yield Blob(path.encode(errors="surrogateescape").decode(errors="replace"), answer[head_end + 1 :][:size])
        at = head_end + 1 + size + 1


def _git(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(["git", *arguments], cwd=folder, input=given, capture_output=True, check=True).stdout  # noqa: S603, S607 - git, as the developer has it
