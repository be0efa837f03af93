"""From facts to a committed decision, and the events that a commit publishes."""
