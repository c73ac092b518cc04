"""Pictures: the live cluster map, rollout and throughput plots."""
