"""Everything that knows PostgreSQL: connecting, the embedded server, our tables, reflection, errors, migrations."""
