"""What tests of stemflow, and of programs built on it, may use."""
