"""Real servers for tests, started on free ports and stopped by their process id."""
