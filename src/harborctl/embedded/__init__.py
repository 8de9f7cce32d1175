"""The embedded PostgreSQL server: its cluster, and the programs of the wheel that start it."""
