"""Tasks that other processes have declared in the store."""
