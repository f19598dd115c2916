"""The worker: loads checkpoints, scores rollouts under OLD and NEW, writes token segments. The only torch user."""
