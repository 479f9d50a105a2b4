"""The SQL state: what was judged, released and rolled out. SQLite by default, PostgreSQL by URL."""

from edgeloop.store.database import BadDatabaseUrl, Database, DatabaseUnavailable
from edgeloop.store.fleet import FleetStore, describe

__all__ = ["BadDatabaseUrl", "Database", "DatabaseUnavailable", "FleetStore", "describe"]
