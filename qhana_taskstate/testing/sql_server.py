"""What the local SQL servers share: databases that are made and dropped."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from qhana_taskstate.testing.server import HOST, LocalServer, ServerMissingError


class SqlServer(LocalServer):
    """A server that holds many databases, reached through SQLAlchemy."""

    #: SQLAlchemy's name of dialect and driver.
    drivername = ""
    #: What to install when the driver is missing.
    driver_package = ""
    #: The superuser, who needs no password.
    user = ""
    #: The database that always exists.
    maintenance_database = ""

    @property
    def url(self) -> str:
        """URL of the database that always exists."""
        return self.database_url(self.maintenance_database)

    def database_url(self, name: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        url = URL.create(self.drivername, username=self.user, host=HOST, port=self.port, database=name)
        return url.render_as_string(hide_password=False)

    def ready(self) -> bool:
        """Whether it answers a query now."""
        if not self.running:
            return False
        try:
            self.execute("SELECT 1")
        except DBAPIError:
            return False
        return True

    def execute(self, statement: str) -> None:
        """Run one statement of SQL in the database that always exists, outside any transaction."""
        with self._connect() as connection:
            connection.execute(text(statement))

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @cached_property
    def _engine(self) -> Engine:
        # Kept, since each new one asks the server for more than its first statement does. It keeps no connection.
        try:
            return create_engine(self.url, poolclass=NullPool, connect_args={"connect_timeout": 5})
        except ModuleNotFoundError as exc:
            raise ServerMissingError(
                f"the driver for {self.kind} is missing; pip install {self.driver_package}"
            ) from exc

    def create_database(self, template: str | None = None) -> str:
        """Make a database with a new name.

        Args:
            template: URL of a database to copy that nobody is connected to; only where `can_copy` is true.

        Returns:
            Its URL.
        """
        name = self._new_name()
        self.execute(self._create_statement(name, None if template is None else self._name(template)))
        return self.database_url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made, whoever is connected to it."""
        self.execute(self._drop_statement(self._name(url)))

    @abstractmethod
    def rename_database(self, url: str) -> str:
        """Give a database that `create_database` made a new name, and end all connections to it.

        Returns:
            Its URL.
        """

    #: Whether `create_database` can copy another one.
    can_copy = False

    @abstractmethod
    def _create_statement(self, name: str, template: str | None) -> str: ...

    @abstractmethod
    def _drop_statement(self, name: str) -> str: ...

    def _new_name(self) -> str:
        return f"test_{secrets.token_hex(6)}"

    def _name(self, url: str) -> str:
        name = make_url(url).database
        if not name or not name.startswith("test_"):
            raise ValueError(f"{name!r} is not a database that create_database() made")
        return name
