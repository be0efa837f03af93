"""Handles of runs, and the decoding of their results."""
