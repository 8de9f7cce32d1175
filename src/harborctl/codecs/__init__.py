"""What a field or an Arrow value means to a PostgreSQL type. Pure: no server is asked, none is needed to test it."""
