"""Ragstone beside the raw libraries and its peers, measured in one run. Not installed with the server."""
