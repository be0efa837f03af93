"""One attempt of a task, from its lease to its outcome."""
