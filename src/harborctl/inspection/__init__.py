"""What is in a file, before anybody loads it."""
