"""Values of a run: stored results, the arguments of a call, and the keys made of them."""
