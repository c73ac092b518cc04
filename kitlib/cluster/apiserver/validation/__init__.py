"""What the API server refuses with 422, kind by kind; `kinds.py` is the door."""
