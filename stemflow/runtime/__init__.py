"""Workers, engine and recovery: the part that meets clocks, tasks and stores."""
