"""Become a command inside a container: `python -m tuner.container tuner worker`.

Passwords come as files (Docker's and Kubernetes' secrets) and go where libraries look for them, so that none is in
the container's configuration, in a URL or on a command line:

- the secret `postgres_ROLE` is the password of that role of PostgreSQL; it goes to libpq's password file,
- a variable `NAME_FILE` that names a secret becomes `NAME` with its content, for libraries that know nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from tuner.errors import TunerError

_ROLE = "postgres_"
_FILE = "_FILE"


class SecretUnusable(TunerError):
    """A secret cannot be read, or is not a password."""

    exit_code = 2


def password(secret: Path) -> str:
    """The one line that a secret holds.

    Raises:
        SecretUnusable: it is not readable, empty, or more than one line.
    """
    try:
        lines = secret.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SecretUnusable(
            f"the secret {secret} must be readable by user {os.getuid()}, but: {reason}. Make it with `make secrets`, "
            "or chmod 444 it (its folder on the host, mode 700, keeps others out)."
        ) from error
    if len(lines) != 1 or not lines[0].strip():
        raise SecretUnusable(
            f"the secret {secret} must be one line, but has {len(lines)}. Make it with `make secrets`."
        )
    return lines[0]


def password_file(secrets: Path) -> str:
    """What libpq's password file says: for each role that has a secret, its password on any host."""
    lines = []
    for secret in sorted(secrets.glob(f"{_ROLE}*")):
        escaped = password(secret).replace("\\", "\\\\").replace(":", "\\:")
        lines.append(f"*:*:*:{secret.name.removeprefix(_ROLE)}:{escaped}\n")
    return "".join(lines)


def environment(given: Mapping[str, str], secrets: Path) -> dict[str, str]:
    """The command's environment: `NAME_FILE` that names a secret is replaced by `NAME`."""
    found = dict(given)
    for name, value in given.items():
        if name.endswith(_FILE) and Path(value).parent == secrets:
            found[name.removesuffix(_FILE)] = password(Path(value))
            del found[name]
    return found


def main(command: list[str]) -> NoReturn:
    """Put the passwords in their places and become the command."""
    if not command:
        sys.exit("usage: python -m tuner.container COMMAND [ARGUMENT]…")
    secrets = Path(os.environ.get("TUNER_SECRETS") or "/run/secrets")
    try:
        passwords, variables = password_file(secrets), environment(os.environ, secrets)
    except SecretUnusable as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    if passwords:
        place = Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
        place.unlink(missing_ok=True)  # of an earlier start, perhaps with an older password
        with open(place, "w", opener=lambda path, flags: os.open(path, flags | os.O_EXCL, 0o600)) as file:
            file.write(passwords)
    try:
        os.execvpe(command[0], command, variables)  # noqa: S606 - this process becomes the command, and gets its signals
    except FileNotFoundError:
        sys.exit(f"there is no command {command[0]!r} in this container.")


if __name__ == "__main__":
    main(sys.argv[1:])
