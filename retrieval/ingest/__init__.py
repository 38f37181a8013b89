"""The write path: readers, chunking, the writer."""
