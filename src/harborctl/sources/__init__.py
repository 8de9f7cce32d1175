"""Sources: what a file, a pipe or a glob holds, as a schema and a stream of batches. A module per format."""
