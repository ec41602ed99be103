"""Measurements of speed and memory, each beside a ceiling of the same run; see README.md."""
