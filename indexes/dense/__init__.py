"""Dense indexes: segments, their wrappers and the stores that stand in for them."""
