"""Checkers of what happened: witness logs, delivery histories and rate-limit ledgers."""
