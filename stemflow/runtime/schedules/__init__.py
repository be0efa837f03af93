"""Schedules in a store: applying, pausing and listing them, and the task that makes their ticks."""
