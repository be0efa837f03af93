"""The store on Redis or Valkey, for workers on many machines."""
