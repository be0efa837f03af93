"""Task declarations in the store: published by workers, read by processes that submit tasks of others."""
