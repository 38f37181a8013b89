"""The catalog: collections, documents, the journal, embeddings."""
