"""Stores commit decisions atomically and lease ready tasks; they take no decisions of their own."""
