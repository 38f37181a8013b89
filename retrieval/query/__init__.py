"""The query path: search, fusion, answers."""
