from tests.data.databases import connect, database, database_url, server, server_url

__all__ = ["connect", "database", "database_url", "server", "server_url"]
