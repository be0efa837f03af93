"""The store in an SQLite file: the embedded default. Several processes on one machine may share it."""
