-- Binary and top-K against exact: their divergences, their masks, and what is certain without the exact value.

-- Certified upper bounds of TV (dppo_core.intervals): from the sampled token, TV = 1 - sum min(P, Q) <= 1 - min(P(a),
-- Q(a)); from top-K, TV <= TV_topK + min(rest of P, rest of Q).
CREATE MACRO _ceiling_sampled(logp_anchor, logp_new) AS
CASE WHEN logp_anchor IS NOT NULL AND logp_new IS NOT NULL THEN 1 - exp(least(logp_anchor, logp_new)) END;

CREATE MACRO _ceiling_topk(tv_topk, mass_anchor, mass_new) AS
CASE WHEN tv_topk IS NOT NULL AND mass_anchor IS NOT NULL AND mass_new IS NOT NULL
    THEN least(1, tv_topk + greatest(0, 1 - greatest(mass_anchor, mass_new))) END;

-- What one scoring knows of OLD -> NEW by each estimate of a measure ('tv', 'kl'): the only pair with an exact one.
CREATE MACRO _estimates(analysis_, measure_) AS TABLE
SELECT step, advantage, sign(advantage)::TINYINT AS sign, logp_old::DOUBLE AS logp_old,
    log_ratio__old_new::DOUBLE AS log_ratio,
    log_ratio__old_new <> 0 AND (log_ratio__old_new > 0) = (advantage > 0) AND advantage <> 0 AS away,
    (CASE measure_ WHEN 'tv' THEN tv_binary__old_new ELSE kl_binary__old_new END)::DOUBLE AS d_binary,
    (CASE measure_ WHEN 'tv' THEN tv_topk__old_new ELSE kl_topk__old_new END)::DOUBLE AS d_topk,
    (CASE measure_ WHEN 'tv' THEN tv_exact__old_new ELSE kl_exact__old_new END)::DOUBLE AS d_exact,
    topk_mass_old::DOUBLE AS topk_mass_old, topk_mass_new::DOUBLE AS topk_mass_new
FROM _facts WHERE analysis = analysis_ AND counted AND tv_exact__old_new IS NOT NULL;

-- How much of the exact divergence an estimate sees.
CREATE MACRO _of_exact(d, d_exact) AS
{'n': count(d), 'n_zero': count(d) FILTER (d_exact = 0),
    'q': (quantile_cont((d / d_exact)::FLOAT, [0.05, 0.25, 0.5, 0.75, 0.95]) FILTER (d_exact > 0))::DOUBLE[],
    'sum_estimate': sum(d), 'sum_exact': sum(d_exact) FILTER (d IS NOT NULL)};

-- Of tokens that move away from r = 1, how many have an estimate, the exact divergence, and both, in each bin
-- (delta before, delta].
CREATE MACRO _masks_of(d, d_exact, away, deltas) AS
{'n': count(d), 'estimates': histogram(d, deltas) FILTER (away),
    'exacts': histogram(d_exact, deltas) FILTER (away AND d IS NOT NULL),
    'smaller': histogram(least(d, d_exact), deltas) FILTER (away AND d IS NOT NULL)};

-- The same at one delta.
CREATE MACRO _masks_at(d, d_exact, away, delta) AS
{'n': count(d), 'n_estimate': count(*) FILTER (away AND d > delta),
    'n_exact': count(d) FILTER (away AND d_exact > delta), 'n_both': count(*) FILTER (away AND d > delta AND d_exact > delta)};

-- The four cells of an estimate's mask and the exact one among n tokens, and how far they agree.
CREATE MACRO _alike(n, n_estimate, n_exact, n_both) AS
{'n_both_keep': n - n_estimate - n_exact + n_both, 'n_only_estimate_drops': n_estimate - n_both,
    'n_only_exact_drops': n_exact - n_both, 'n_both_drop': n_both,
    'agreement': (n - n_estimate - n_exact + 2 * n_both) / nullif(n, 0),
    'kappa': _kappa(n - n_estimate - n_exact + n_both, n_estimate - n_both, n_exact - n_both, n_both)};

-- outside: by how much the exact TV lies outside, below 0 inside; but for the rounding of float32 (1e-6) it never does.
CREATE MACRO _outside(d_exact, low, high) AS
CASE WHEN d_exact IS NOT NULL AND low IS NOT NULL THEN greatest(low - d_exact, d_exact - high) END;

-- Certified intervals of the TV of one pair, by the sampled token and by top-K (OLD -> NEW only); away: the token moves
-- away from r = 1, so that its mask depends on TV.
CREATE MACRO _intervals(analysis_, anchor_, evaluated_at_) AS TABLE
SELECT *, _outside(tv_exact, low_sampled, high_sampled) AS outside_sampled,
    _outside(tv_exact, low_topk, high_topk) AS outside_topk
FROM (
    SELECT step, sign(advantage)::TINYINT AS sign, tv_exact, sign(advantage) * log_ratio > 0 AS away,
        CASE WHEN logp_anchor IS NOT NULL THEN tv_binary END AS low_sampled,
        _ceiling_sampled(logp_anchor, logp_anchor + log_ratio) AS high_sampled,
        CASE WHEN high_topk IS NOT NULL THEN tv_topk END AS low_topk, high_topk
    FROM (
        SELECT * REPLACE (pair_tv_exact AS tv_exact), CASE WHEN anchor_ = 'old' AND evaluated_at_ = 'end'
            THEN _ceiling_topk(tv_topk, topk_mass_old, topk_mass_new) END AS high_topk
        FROM _paired(analysis_, anchor_, evaluated_at_) WHERE counted AND log_ratio IS NOT NULL));

CREATE MACRO _certified(low, high, outside) AS
{'n': count(low), 'n_exact': count(outside), 'n_covered': count(*) FILTER (outside <= 1e-6),
    'excess': max(outside), 'sum_width': sum(high - low)};

CREATE MACRO _certain(low, high, away, delta) AS
{'n': count(low), 'n_away': count(low) FILTER (away), 'n_drops': count(*) FILTER (away AND low > delta),
    'n_undecided': count(*) FILTER (away AND low <= delta AND high > delta)};
