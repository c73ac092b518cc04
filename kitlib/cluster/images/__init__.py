"""The registry: programs that stand for container images."""
