"""Rerankers: a query and its passages to scores."""
