"""What the API server passes on: logs, exec, attach, port-forward, proxies, metrics; `streams.py` is the door."""
