"""One load, from its sources to its commit, with its attempts, chunks and workers."""
