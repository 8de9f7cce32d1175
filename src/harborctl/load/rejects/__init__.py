"""Rows that cannot go in: how they are found, kept, and written to the reject file."""
