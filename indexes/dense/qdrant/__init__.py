"""Dense indexes in Qdrant: ``index`` in a server or its local mode, ``edge`` in the embedded engine."""
