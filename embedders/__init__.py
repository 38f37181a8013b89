"""Embedders: text to unit vectors of one space."""
