"""Definitions from a database, through SQLAlchemy Core: one row is one mount.

Owns what is asked and how a row becomes the mapping of a definition. What it may say is that of any untrusted source.
Needs the extra ``db`` and the database's driver, both imported when the rows are read. Threads: safe, without state.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genro_storage.config import masking, secrets
from genro_storage.config.sources import Untrusted
from genro_storage.config.trust import Privilege
from genro_storage.errors import StorageConfigError, StorageUnavailableError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

#: The column whose JSON holds further keys of the definition.
JSON_COLUMN = 'definition'


class DatabaseSource(Untrusted):
    """The rows of a table, or of a query with ``:name`` in it for each of its ``parameters``.

    ``database``: a URL of SQLAlchemy, which may be a reference to a secret ('env:DATABASE_URL'), or an Engine. A column
    is the key of its name, one that is NULL is not given, and what ``json_column`` holds are further keys. ``columns``:
    only these of the table; without them all, so that a column that is no key is an error and not overlooked.

    Read anew by each configure. Not trusted, whoever may write the table: ``allow`` says with what it is.
    """

    def __init__(
        self,
        database: 'str | URL | Engine',
        table: str | None = None,
        *,
        query: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        json_column: str = JSON_COLUMN,
        allow: Iterable[Privilege | str] = (),
    ) -> None:
        if (table is None) == (query is None):
            raise TypeError("expected either a 'table' or a 'query'")
        if query is not None and columns is not None:
            raise TypeError("'columns' are those of a table; name them in the query")
        self._database = database
        self._table = table
        self._query = query
        self._parameters = dict(parameters or {})
        self._columns = None if columns is None else tuple(columns)
        self._json_column = json_column
        super().__init__(self._rows, allow)

    def __repr__(self) -> str:
        return f'DatabaseSource({self._where}, {self._what}, allow={sorted(each.value for each in self.allowed)})'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatabaseSource) and self._identity == other._identity

    __hash__ = None

    def __reduce__(self) -> tuple[Any, ...]:
        if not isinstance(self._database, str) or (
            masking.has_userinfo(self._database) and not secrets.is_reference(self._database)
        ):
            raise StorageConfigError(
                f'{self.name}: a pickle would carry an engine, or the password in a URL; '
                "give the URL as 'env:NAME', and set that environment variable"
            )
        return _again, self._identity

    @property
    def name(self) -> str:
        """What messages call it; without the password of the database."""
        return f'{self._what} of {self._where}'

    @property
    def _identity(self) -> tuple[Any, ...]:
        return (
            self._database,
            self._table,
            self._query,
            self._parameters,
            self._columns,
            self._json_column,
            self.allowed,
        )

    @property
    def _what(self) -> str:
        return f'table {self._table!r}' if self._table is not None else 'a query'

    @property
    def _where(self) -> str:
        url = self._database if isinstance(self._database, str) else getattr(self._database, 'url', self._database)
        # The userinfo of a URL, and whatever its query may hold.
        return masking.without_userinfo(str(url)).partition('?')[0]

    def _rows(self) -> list[dict[str, object]]:
        """The mappings of all rows. Raises StorageConfigError, StorageUnavailableError."""
        try:
            import sqlalchemy
            from sqlalchemy.exc import DBAPIError, SQLAlchemyError
        except ImportError as error:
            raise StorageConfigError(
                f"{self.name}: needs a package that is not installed: pip install 'genro-storage[db]'"
            ) from error
        engine, own = self._engine()
        connected = False
        try:
            with engine.connect() as connection:
                connected = True
                asked = sqlalchemy.text(self._query) if self._query is not None else self._select(connection)
                rows = [dict(row) for row in connection.execute(asked, self._parameters).mappings()]
        except DBAPIError as error:
            # SQLite calls a table that is not there an operational error, as others do a server that is not.
            if not connected or error.connection_invalidated:
                raise StorageUnavailableError(f'{self.name}: the database does not answer: {_said(error)}') from error
            raise StorageConfigError(f'{self.name}: the database refuses this: {_said(error)}') from error
        except SQLAlchemyError as error:
            raise StorageConfigError(f'{self.name}: cannot be asked for: {type(error).__name__}') from error
        finally:
            if own:
                engine.dispose()
        return [self._mapping(number, row) for number, row in enumerate(rows, 1)]

    def _engine(self) -> 'tuple[Engine, bool]':
        """The engine, and whether it is this reading's own."""
        import sqlalchemy
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        if isinstance(self._database, sqlalchemy.Engine):
            return self._database, False
        try:
            url: Any = self._database
            if isinstance(url, str) and secrets.is_reference(url):
                url = secrets.parsed(url, '.').look_up()
            # Its texts are chained to errors: without what the parameters hold.
            return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, hide_parameters=True), True
        except secrets.WrongReferenceError as error:
            raise StorageConfigError(f'{self.name}: {error}') from error
        except (NoSuchModuleError, ImportError) as error:
            raise StorageConfigError(f'{self.name}: the driver of this database is not installed: {error}') from error
        except ArgumentError:
            # Its own text quotes the URL.
            raise StorageConfigError(f'{self.name}: expected a URL of SQLAlchemy such as sqlite:///FILE') from None

    def _select(self, connection: 'Connection') -> Any:
        import sqlalchemy
        from sqlalchemy.exc import NoSuchTableError

        schema, _, name = str(self._table).rpartition('.')
        try:
            table = sqlalchemy.Table(name, sqlalchemy.MetaData(), schema=schema or None, autoload_with=connection)
        except NoSuchTableError as error:
            raise StorageConfigError(f'{self.name}: no such table') from error
        if self._columns is None:
            chosen = list(table.columns)
        else:
            missing = [column for column in self._columns if column not in table.columns]
            if missing:
                raise StorageConfigError(f'{self.name}: no such column: {", ".join(missing)}')
            chosen = [table.columns[column] for column in self._columns]
        return sqlalchemy.select(*chosen).order_by(*table.primary_key.columns)

    def _mapping(self, number: int, row: Mapping[str, Any]) -> dict[str, object]:
        given = {column: _plain(value) for column, value in row.items() if value is not None}
        further = given.pop(self._json_column, {})
        where = f'{self.name}: row {number}'
        if isinstance(further, str | bytes):
            import json

            try:
                further = json.loads(further)
            except ValueError:
                # Its own text would quote what may be a secret.
                raise StorageConfigError(f'{where}: column {self._json_column!r} holds no JSON') from None
        if not isinstance(further, Mapping):
            raise StorageConfigError(f'{where}: column {self._json_column!r}: expected a JSON object')
        twice = sorted(given.keys() & further.keys())
        if twice:
            raise StorageConfigError(f'{where}: {", ".join(map(repr, twice))} both as a column and inside the JSON')
        return {**given, **further}


def _plain(value: object) -> object:
    """A value in the words of the configuration."""
    from decimal import Decimal

    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _said(error: Any) -> str:
    """What the database's own driver says, in a line; without the statement, which SQLAlchemy adds."""
    return str(error.orig).strip().partition('\n')[0] or type(error.orig).__name__


def _again(
    database: str,
    table: str | None,
    query: str | None,
    parameters: Mapping[str, Any],
    columns: Sequence[str] | None,
    json_column: str,
    allow: Iterable[Privilege],
) -> DatabaseSource:
    return DatabaseSource(
        database, table, query=query, parameters=parameters, columns=columns, json_column=json_column, allow=allow
    )
