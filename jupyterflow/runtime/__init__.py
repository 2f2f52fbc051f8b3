"""Executes tasks: the sans-I/O task, and the driver that runs many in a thread."""
