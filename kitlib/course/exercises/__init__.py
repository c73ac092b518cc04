"""The exercises, one file per chapter: hints, a solution, and a function that looks at the cluster."""
