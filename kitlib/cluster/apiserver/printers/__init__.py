"""Tables: what `kubectl get` prints is made here, by the server; `table.py` is the door."""
