"""The machine: `decide` turns facts into decisions, by the one table of `core.table`. Pure and synchronous."""
