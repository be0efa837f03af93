"""Tasks as users define them: registry, options, parameters, contexts, middleware and signals."""
