"""Ready-made hooks that hand a trainer's rollouts to a `RolloutLogger`. Each loads its trainer only when it is used."""
