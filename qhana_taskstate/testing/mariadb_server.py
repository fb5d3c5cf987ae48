"""A private MariaDB as a local process."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from qhana_taskstate.testing.server import HOST, ServerMissingError, ServerStartError, find_program
from qhana_taskstate.testing.sql_server import SqlServer

_INSTALL_SECONDS = 120

_CONNECTIONS = text("SELECT id FROM information_schema.processlist WHERE db = :name")
_TABLES = text("SELECT table_name FROM information_schema.tables WHERE table_schema = :name")


class MariaDBServer(SqlServer):
    """A real MariaDB from the system's packages (Debian: mariadb-server), run as the current user."""

    kind = "mariadb"
    drivername = "mysql+pymysql"
    driver_package = "pymysql"
    user = "root"
    maintenance_database = "mysql"

    def rename_database(self, url: str) -> str:
        """Move the tables of a database that `create_database` made to a new one, and end all connections to it."""
        old, new = self._name(url), self._new_name()
        with self._connect() as connection:
            connection.exec_driver_sql(self._create_statement(new, None))
            for (number,) in connection.execute(_CONNECTIONS, {"name": old}).all():
                with suppress(DBAPIError):
                    connection.exec_driver_sql(f"KILL {number}")
            tables = connection.execute(_TABLES, {"name": old}).scalars().all()
            moves = ", ".join(f"{old}.`{table}` TO {new}.`{table}`" for table in tables)
            if moves:
                connection.exec_driver_sql(f"RENAME TABLE {moves}")
            connection.exec_driver_sql(self._drop_statement(old))
        return self.database_url(new)

    def _create_statement(self, name: str, template: str | None) -> str:
        if template is not None:
            raise ValueError("MariaDB cannot copy a database; create it empty")
        return f"CREATE DATABASE {name} CHARACTER SET utf8mb4"

    def _drop_statement(self, name: str) -> str:
        return f"DROP DATABASE IF EXISTS {name}"

    def _command(self) -> list[str]:
        return [
            str(self._program("mariadbd", "mysqld")),
            "--no-defaults",
            *_user_option(),
            f"--datadir={self.data_folder}",
            f"--tmpdir={self.folder}",
            f"--socket={self.folder / 'socket'}",
            f"--pid-file={self.folder / 'pid'}",
            f"--bind-address={HOST}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--performance-schema=off",
            "--max-connections=200",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            # A commit need not reach the disk: only a crash of the machine would lose it.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            # Nor need the files of the tables.
            "--debug-no-sync",
        ]

    def _prepare(self) -> None:
        if (self.data_folder / "mysql").exists():
            return
        shutil.rmtree(self.data_folder, ignore_errors=True)
        command = [
            str(self._program("mariadb-install-db", "mysql_install_db")),
            "--no-defaults",
            *_user_option(),
            f"--datadir={self.data_folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_INSTALL_SECONDS,
            cwd=self.folder,
            # A server that starts removes the temporary tables that it finds, those of others too (MariaDB 10.11).
            env={**os.environ, "TMPDIR": str(self.folder)},
            check=False,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr)[-2000:]
            raise ServerStartError(f"mariadb-install-db ended with code {done.returncode}:\n{said}")

    def _program(self, *names: str) -> Path:
        program = find_program(*names)
        if program is None:
            raise ServerMissingError("there is no MariaDB server; apt-get install mariadb-server")
        return program


def _user_option() -> list[str]:
    """The option that lets root run the server; nobody else may choose a user."""
    return ["--user=root"] if os.geteuid() == 0 else []
