"""From the staging table into the target, by key."""
