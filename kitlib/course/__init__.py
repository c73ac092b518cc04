"""Exercises: check, hint, solution, and a record of progress."""
