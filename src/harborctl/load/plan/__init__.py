"""How a source goes into a target, settled before the first row moves: columns and keys. Pure data."""
