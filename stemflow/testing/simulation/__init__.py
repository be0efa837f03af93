"""The deterministic simulation: the real engine on a seeded loop with virtual time and injected faults."""
