"""BM25 indexes and the analysis of text into terms."""
