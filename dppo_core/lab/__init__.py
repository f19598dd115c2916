"""The lab: a 0.2 M-parameter policy that learns to add, with every method of the paper's figures, in seconds on a core.

    settings     what a run depends on, and its name
    language     the task: problems, noisy demonstrations, the reward
    policy       GPT-2 over one flat vector of weights
    warmup       supervised warm-up, cached by hash
    sampler      the engine: KV cache, rounded weights and logits
    methods      each method as one call of `dppo_core.losses`
    train        the loop: stale sampling, group advantages, minibatch updates
    metrics      what is kept of an iteration
    statistics   paired comparisons, Holm's correction, a bootstrap over prompts
    tokens       token-level claims from every token of some iterations (token_statistics: from their sums)
    checkpoint   a policy as a Hugging Face checkpoint

Import from the modules; `settings` and `language` need no torch.
"""
