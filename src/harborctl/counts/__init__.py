"""How many rows are in a table: estimated, sampled, or counted."""
