"""A PostgreSQL of the test's own, with passwords, that may be killed; the shared one trusts everybody and stays up."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SUPERUSER = "postgres"


def free_port() -> int:
    """A TCP port on this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binaries() -> Path:
    """The folder of initdb and pg_ctl, which Debian does not put on the path."""
    found = shutil.which("initdb")
    folders = (
        [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    )
    folders = [folder for folder in folders if (folder / "initdb").exists()]
    assert folders, "these tests need PostgreSQL's server: apt-get install postgresql"
    return folders[0]


class OwnPostgres:
    """A cluster in a folder of its own, on a port of its own."""

    def __init__(self, password: str, initdb: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.password = password
        self.folder = Path(tempfile.mkdtemp(prefix="tuner-postgres-"))
        self._as: list[str] = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self.folder, SUPERUSER, SUPERUSER)
            self._as = ["runuser", "-u", SUPERUSER, "--"]
        told = self.folder / "password"
        told.write_text(password)
        given = ["--pgdata", self._data, "--username", SUPERUSER, f"--pwfile={told}", "--no-sync", *initdb]
        self._run([*self._as, "initdb", *given])
        self.start()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off -k {self.folder}"
        log = str(self.folder / "log")
        self._run([*self._as, "pg_ctl", "--pgdata", self._data, "--wait", "--log", log, "-o", options, "start"])

    def restart(self) -> None:
        """Let it crash, with every connection, and start it again as it was; wait until it answers."""
        log = str(self.folder / "log")
        self._run(
            [*self._as, "pg_ctl", "--pgdata", self._data, "--wait", "--log", log, "--mode", "immediate", "restart"]
        )

    def close(self) -> None:
        """Stop the server and delete everything."""
        self._run([*self._as, "pg_ctl", "--pgdata", self._data, "--mode", "immediate", "stop"])
        shutil.rmtree(self.folder)

    def script(self, path: Path, **environment: str) -> None:
        """Run a file of SQL as the image does it: with psql, as the superuser, until the first error."""
        server = ["--host", "127.0.0.1", "--port", str(self.port), "--username", SUPERUSER]
        command = ["psql", *server, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--file", str(path)]
        self._run(command, PGPASSWORD=self.password, **environment)

    def _run(self, command: Sequence[str], **environment: str) -> None:
        told = self.folder.with_suffix(".told")  # not a pipe, which a server that is started would keep open
        with told.open("w+") as out:
            path = f"{binaries()}{os.pathsep}{os.environ['PATH']}"
            variables = {**os.environ, "PATH": path, **environment}
            done = subprocess.run(command, stdout=out, stderr=out, env=variables, cwd="/", check=False)
        said = told.read_text()
        told.unlink()
        assert done.returncode == 0, f"{command}: {said}"
