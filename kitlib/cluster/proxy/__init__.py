"""kube-proxy: the addresses of Services lead to Pods. `proxier.py` listens, `balancer.py` chooses."""
