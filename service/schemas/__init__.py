"""The shapes of what goes in and comes out: the rollout record, requests and responses."""
