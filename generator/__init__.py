"""Generators: a question and its passages to a cited answer."""
