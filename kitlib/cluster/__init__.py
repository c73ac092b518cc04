"""The embedded cluster: Kubernetes, small enough to read. One module per component, named after it."""
