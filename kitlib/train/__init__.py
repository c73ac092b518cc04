"""Distributed data parallel training as a Kubernetes Job, measured honestly."""
