"""A private PgBouncer as a local process, in transaction mode."""

from __future__ import annotations

import os
import pwd

import psycopg
from sqlalchemy import make_url

from qhana_taskstate.testing.postgres_server import PostgresServer
from qhana_taskstate.testing.server import HOST, LocalServer, ServerMissingError, find_program

#: It does not run as root.
_UNPRIVILEGED_USER = "nobody"


class PgBouncer(LocalServer):
    """A real PgBouncer before a PostgreSQL: each transaction may have another connection to the server.

    Args:
        server: The PostgreSQL.
        pool_size: How many connections to it each database has.
    """

    kind = "pgbouncer"
    start_seconds = 20.0

    def __init__(self, server: PostgresServer, *, pool_size: int = 3) -> None:
        super().__init__()
        self._server = server
        self._pool_size = pool_size

    @property
    def url(self) -> str:
        """URL of the database that always exists."""
        return self.through(self._server.url)

    def through(self, url: str) -> str:
        """Return the URL by which a database of the server is reached through this."""
        return make_url(url).set(port=self.port).render_as_string(hide_password=False)

    def ready(self) -> bool:
        """Whether it answers a query now."""
        try:
            address = make_url(self.url).set(drivername="postgresql").render_as_string()
            with psycopg.connect(address, connect_timeout=2, autocommit=True) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.Error:
            return False

    def _prepare(self) -> None:
        self.folder.chmod(0o755)
        lines = [
            "[databases]",
            f"* = host={HOST} port={self._server.port} user={self._server.user}",
            "[pgbouncer]",
            f"listen_addr = {HOST}",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            # Whoever comes is let in, as by the server.
            "auth_type = any",
            "pool_mode = transaction",
            f"default_pool_size = {self._pool_size}",
            "max_client_conn = 1000",
        ]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        program = find_program("pgbouncer")
        if program is None:
            raise ServerMissingError("there is no PgBouncer; apt-get install pgbouncer")
        return [str(program), str(self.folder / "pgbouncer.ini")]

    def _run_as(self) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        entry = pwd.getpwnam(_UNPRIVILEGED_USER)
        return entry.pw_uid, entry.pw_gid
