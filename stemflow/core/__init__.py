"""The state machine: `decide` turns facts into decisions, by the transition table of `core.table`. Pure and
synchronous."""
