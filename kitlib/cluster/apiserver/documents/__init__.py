"""What the API server says of itself: discovery and OpenAPI; `documents.py` is the door."""
