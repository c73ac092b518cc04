"""A learning kit: Kubernetes from numbered notebooks, then PyTorch DDP on it."""
