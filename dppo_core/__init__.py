"""The mathematics of the trust region in LLM reinforcement learning, on tensors: pure functions, no I/O.

    divergence   binary TV and KL from log-probabilities; top-K TV and KL from a support and its rest
    topk         supports: the top-K of a policy, or the list that an inference engine logged
    two_policy   every statistic of two policies in one pass over their logits, in constant memory
    masks        PPO and DPPO masks, gradient weights
    cells        where two masks agree and disagree, by sign of the advantage
    tokens       what a log knows about its tokens: the input of every method
    methods      the registry of methods and presets (`methods.catalog`), torch-free to list
    profiles     binary KL and A = 0 as each trainer computes them
    losses       differentiable policy losses, and a loss from any registered method
    bounds       Theorem 3.1, Eq. 7 and Eq. 8; certified TV in `intervals`, the rate-matched δ in `rate_match`
    reference    the same quantities, slow and obvious, in float64

Import from the modules; this package imports nothing by itself, so that the catalog stays free of torch.
"""
