"""The command line: a command parses, calls the library once, and prints."""

from tuner.cli.app import main

__all__ = ["main"]
