"""Which types columns of a file have, so that a table made from them holds every value as it stands."""
