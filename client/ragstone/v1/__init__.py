"""Generated from proto/ragstone/v1 by tools/generate_stubs.py. Do not edit."""
