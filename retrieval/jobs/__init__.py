"""Batch jobs beside a server: they talk to it as any client does."""
