"""Files, and futures of files."""
