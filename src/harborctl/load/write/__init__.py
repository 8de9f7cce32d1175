"""Batches → a table, by COPY or INSERT, straight into the target or into a staging table."""
