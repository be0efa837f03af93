"""The store in memory, for tests, simulation and runs that need not survive the process."""
