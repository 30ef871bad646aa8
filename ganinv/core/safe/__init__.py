"""Readers that never execute a file, and writers that write whole files or none."""
