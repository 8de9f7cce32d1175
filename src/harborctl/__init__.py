"""harborctl loads CSV and Parquet files into PostgreSQL, fast and safely."""

__version__ = "0.1.0"
