"""The sessions of a load: its locks, its server process, and which failures to retry."""
