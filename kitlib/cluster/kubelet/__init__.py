"""kubelet and container runtime: a Pod is a group of local processes."""
