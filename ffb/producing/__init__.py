"""A producer, and what outlives it when it is killed."""
