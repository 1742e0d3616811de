"""Tables in the form that each database has: schemas in PostgreSQL, the schema's name before the table's in SQLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op


class Form:
    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._prefixed = connection.dialect.name == "sqlite"

    def schemas(self, names: Sequence[str]) -> None:
        if not self._prefixed:
            for name in names:
                op.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")

    def table(
        self,
        schema: str,
        name: str,
        *parts: sa.schema.SchemaItem,
        indices: Mapping[str, Sequence[str]] | None = None,
        by_range: str | None = None,
    ) -> None:
        """As `Tables._table` in serving/storage/tables.py: `indices` name -> columns; `by_range`: in partitions by this column,
        of which the one for whatever fits nowhere else is made here."""
        whole, within = (f"{schema}_{name}", None) if self._prefixed else (name, schema)
        parted = by_range is not None and not self._prefixed
        options: dict[str, Any] = {"postgresql_partition_by": f"RANGE ({by_range})"} if parted else {}
        op.create_table(whole, *parts, schema=within, **options)
        for called, columns in (indices or {}).items():
            op.create_index(f"{schema}_{name}_{called}", whole, list(columns), schema=within)
        if parted:
            op.execute(f"CREATE TABLE {schema}.{name}_rest PARTITION OF {schema}.{name} DEFAULT")

    def move(self, table: str, schema: str) -> None:
        """The rows of a table without a schema into the one of the same name in `schema`; the old table goes."""
        columns = ", ".join(f'"{column["name"]}"' for column in sa.inspect(self._connection).get_columns(table))
        target = f"{schema}_{table}" if self._prefixed else f"{schema}.{table}"
        op.execute(f"INSERT INTO {target} ({columns}) SELECT {columns} FROM {table}")
        op.drop_table(table)
