-- Counts, how sure a rate is, and how far two masks agree.

CREATE MACRO _total(n, which) AS coalesce(sum(n) FILTER (which), 0)::BIGINT;

-- Cohen's kappa of two masks, (p_o - p_e) / (1 - p_e) times n^2 above and below; NULL where chance agreement is 1, and
-- without tokens.
CREATE MACRO _kappa(both_keep, only_first_drops, only_second_drops, both_drop) AS
2 * (both_keep::DOUBLE * both_drop - only_first_drops::DOUBLE * only_second_drops)
    / nullif((both_keep + only_first_drops)::DOUBLE * (only_first_drops + both_drop)
        + (both_keep + only_second_drops)::DOUBLE * (only_second_drops + both_drop), 0);

-- One end of Wilson's 95 % interval of a share k of n: side -1 the lower, 1 the upper. NULL where n = 0.
-- (k + z^2/2 ± z sqrt(k (n - k) / n + z^2/4)) / (n + z^2) with z the normal's 97.5 % quantile, z^2 = 3.8414588…
CREATE MACRO _wilson(k, n, side) AS
CASE WHEN n > 0 THEN greatest(0, least(1, (k + 1.920729410347062::DOUBLE
    + side * 1.959963984540054::DOUBLE * sqrt(k::DOUBLE * (n - k) / n + 0.960364705173531::DOUBLE))
    / (n + 3.841458820694124::DOUBLE))) END;
