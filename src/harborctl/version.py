"""The version of harborctl."""

__version__ = "0.1.0"
