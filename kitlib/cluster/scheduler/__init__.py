"""kube-scheduler: a node for each Pod. `scheduler.py` is the loop; filters and scores are in `plugins.py`."""
