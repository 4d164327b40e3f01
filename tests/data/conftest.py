from tests.data.databases import database, database_url, server_url

__all__ = ["database", "database_url", "server_url"]
