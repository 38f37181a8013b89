"""Token indexes: every passage's token vectors, compressed, for late interaction."""
