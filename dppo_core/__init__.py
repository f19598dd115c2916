"""The mathematics of the trust region in LLM reinforcement learning, on tensors: pure functions, no I/O.

    divergence   binary TV and KL from log-probabilities; top-K TV and KL from a support and its rest
    topk         supports: the top-K of a policy, or the list that an inference engine logged
    two_policy   every statistic of two policies in one pass over their logits, in constant memory
    masks        PPO and DPPO masks, gradient weights
    cells        where two masks agree and disagree, by sign of the advantage
    reference    the same quantities, slow and obvious, in float64
    methods.catalog   presets, torch-free

Import from the modules; this package imports nothing by itself, so that the catalog stays free of torch.
"""
